from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch.distributions import Beta, Exponential, Gamma, Laplace, Normal, StudentT, kl_divergence

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.catalogue import TERMS
from structured_ensembles.scores.diversity import Observation

KINDS = {Normal: 2, Laplace: 2, Beta: 2, Gamma: 2, Exponential: 1}


def positive(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def observe(distributions):
    return Observation(
        {name: d.loc if hasattr(d, "loc") else d.mean for name, d in distributions.items()}, distributions
    )


def draw(kind, seed=0):
    """Three members, groups of 4 and 2 channels."""
    return {
        str(width): kind(*(positive(3, width, seed=seed + width + place).requires_grad_() for place in range(count)))
        for width in (4, 2)
        for count in [KINDS[kind]]
    }


def slow(distributions, constructor):
    """Pair by pair, channel by channel."""
    by_group = []
    for d in distributions.values():
        names = list(d.arg_constraints)
        values = []
        for i, j in combinations(range(3), 2):
            for c in range(d.batch_shape[1]):
                p, q = (constructor(**{name: getattr(d, name)[member, c] for name in names}) for member in (i, j))
                values.append((kl_divergence(p, q) + kl_divergence(q, p)).item() / 2)
        by_group.append(sum(values) / len(values))
    return 1 / (1 + sum(by_group) / len(by_group))


@pytest.mark.parametrize("kind", KINDS)
def test_is_the_mean_over_pairs_and_channels(kind):
    distributions = draw(kind)
    assert TERMS["kl"](observe(distributions)).item() == pytest.approx(slow(distributions, kind), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_slope(kind):
    parameters = [positive(3, 4, seed=place).requires_grad_() for place in range(KINDS[kind])]
    assert torch.autograd.gradcheck(lambda *values: TERMS["kl"](observe({"a": kind(*values)})), parameters)


def test_a_worked_example():
    """KL(N(0, 1), N(2, 1)) = 2^2 / 2 either way."""
    distributions = {"a": Normal(torch.tensor([[0.0], [2.0]]), 1.0)}
    assert TERMS["kl"](observe(distributions)).item() == pytest.approx(1 / (1 + 2**2 / 2))


def test_sees_which_channels_differ():
    swapped, alike = torch.tensor([[2.0, 0], [0, 2]]), torch.tensor([[2.0, 0], [2, 0]])
    assert TERMS["kl"](observe({"a": Normal(swapped, 1.0)})) < 0.5
    assert TERMS["kl"](observe({"a": Normal(alike, 1.0)})) == 1


def test_without_a_closed_form_two_moments_are_compared():
    location = torch.tensor([[0.0], [2.0]])
    spread = math.sqrt(5 / (5 - 2))
    expected = TERMS["kl"](observe({"a": Normal(location, spread)}))
    assert TERMS["kl"](observe({"a": StudentT(5.0, location, 1.0)})).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("distributions", [None, {}])
def test_scores_that_are_not_drawn_are_refused(distributions):
    with pytest.raises(SettingsError, match="parametrisation normal, laplace, beta, gamma or exponential"):
        TERMS["kl"](Observation({"a": torch.zeros(2, 3)}, distributions))


def test_mixed_kinds_are_refused():
    distributions = {"a": draw(Normal)["4"], "b": draw(Gamma)["2"]}
    with pytest.raises(SettingsError, match="one kind of distribution in all groups, found Gamma, Normal"):
        TERMS["kl"](observe(distributions))
