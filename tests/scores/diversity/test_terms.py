"""What every built-in term promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal

from structured_ensembles.options.catalogue import TERMS
from structured_ensembles.scores.diversity import Observation, penalty

BOUNDED = ("cosine", "kl", "output", "overlap")
PUBLISHED = ("mmd", "mmd_global", "mmd_median", "mmd_textbook")


def observe(scores):
    """All that any term asks for, made of the scores: drawn around them, and logits that follow from them."""
    flat = torch.cat(list(scores.values()), dim=1)
    inputs = torch.linspace(-1, 1, 4 * flat.shape[1], dtype=flat.dtype).reshape(4, -1)
    logits = torch.stack([flat @ inputs.T, torch.sin(flat) @ inputs.T, torch.zeros(len(flat), 4).to(flat)], dim=-1)
    drawn = {name: Normal(group, torch.exp(group / 10)) for name, group in scores.items()}
    return Observation(scores, drawn, logits)


def test_each_term_is_in_one_of_the_lists():
    assert sorted(BOUNDED + PUBLISHED) == sorted(TERMS)


# To mmd_median its bandwidth is a constant, which finite differences do not know.
@pytest.mark.parametrize("name", [name for name in TERMS if name != "mmd_median"])
def test_gradient_is_the_slope(name, random_scores):
    scores = random_scores(5, 3, 5)

    def value(*groups):
        return TERMS[name](observe(dict(zip(scores, groups, strict=True))))

    assert torch.autograd.gradcheck(value, tuple(scores.values()), rtol=1e-4)


@pytest.mark.parametrize("name", BOUNDED)
def test_identical_members_are_the_worst_and_have_a_gradient(name, random_scores):
    scores = {group: values[:1].detach().repeat(3, 1).requires_grad_() for group, values in random_scores(5, 3).items()}

    def value(*groups):
        return TERMS[name](observe(dict(zip(scores, groups, strict=True))))

    assert value(*scores.values()).item() == pytest.approx(1)
    assert torch.autograd.gradcheck(value, tuple(scores.values()), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("start", [0.0, 1.0, None], ids=["zeros", "ones", "random"])
@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_finite_at_identical_members(name, start, dtype, random_scores):
    one = {group: values[:1].detach().to(dtype) for group, values in random_scores(6, 3, 6).items()}
    same = {
        group: (values if start is None else torch.full_like(values, start)).repeat(3, 1).requires_grad_()
        for group, values in one.items()
    }
    value = TERMS[name](observe(same))
    value.backward()
    assert value.dtype == dtype
    assert value.isfinite()
    assert all(group.grad.isfinite().all() for group in same.values())


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("name", BOUNDED)
def test_a_term_lies_between_zero_and_one(name, any_scores, data):
    value = TERMS[name](observe(data.draw(any_scores))).item()
    assert -1e-9 <= value <= 1 + 1e-9


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("name", TERMS)
def test_order_of_groups_and_of_channels_within_all_members_is_irrelevant(name, any_scores, data):
    scores = data.draw(any_scores)
    inverse = (lambda value: 1 / value) if name in PUBLISHED else float
    turned = {group: scores[group].flip(1) for group in reversed(scores)}
    distributions, logits = observe(scores).distributions, observe(scores).logits
    flipped = {group: Normal(d.loc.flip(1), d.scale.flip(1)) for group, d in distributions.items()}
    before = TERMS[name](Observation(scores, distributions, logits)).item()
    after = TERMS[name](Observation(turned, flipped, logits)).item()
    assert inverse(after) == pytest.approx(inverse(before), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["cosine", "kl", "overlap"])
def test_width_is_irrelevant(name, random_scores):
    scores = {group: values.detach() for group, values in random_scores(4, 7).items()}
    wider = {**scores, "layer0": scores["layer0"].repeat(1, 5)}
    assert TERMS[name](observe(wider)).item() == pytest.approx(TERMS[name](observe(scores)).item(), abs=1e-9)


@pytest.mark.parametrize("name", ["cosine", "overlap"])
def test_descent_turns_shared_channels_into_disjoint_ones(name, random_scores):
    """The terms fit to be a default do alone what they are for: two members that keep no channel in common."""
    scores = random_scores(8, 16, members=2)
    start = {group: values.detach().clone().abs() for group, values in scores.items()}
    leaves = {group: values.clone().requires_grad_() for group, values in start.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=0.02)
    for _ in range(300):
        optimiser.zero_grad()
        penalty({name: 1.0}, Observation(leaves)).backward()
        optimiser.step()
    assert TERMS[name](Observation(leaves)) < 0.25 < TERMS[name](Observation(start))
