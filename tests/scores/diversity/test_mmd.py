"""The terms mmd, mmd_global, mmd_textbook and mmd_median."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from structured_ensembles.options.catalogue import TERMS
from structured_ensembles.scores.diversity import Observation, mmd_textbook
from structured_ensembles.scores.diversity.mmd import published_kernel, squared_mmd, width
from structured_ensembles.scores.diversity.mmd_textbook import median, textbook_kernel

DISJOINT = Observation({"layer": torch.tensor([[2.0, 2, 0, 0], [0, 0, 2, 2]])})
ALIKE = Observation({"layer": torch.tensor([[2.0, 2, 0, 0], [2, 2, 0, 0]])})


def published(a, b, gamma):
    inner = [sum((x - y) ** 2 for y in b) / len(b) for x in a]
    return sum(math.exp(-value / gamma) for value in inner) / len(a)


def textbook(a, b, gamma):
    return sum(math.exp(-((x - y) ** 2) / gamma) for x in a for y in b) / (len(a) * len(b))


def slow(groups, kernel, bandwidth=len):
    """D by the definition: groups are lists of members, members lists of scores; gamma from all of a group's scores."""
    total = 0.0
    for members in groups:
        gamma = bandwidth(members[0]) if bandwidth is len else bandwidth(members)
        for a, b in combinations(members, 2):
            total += kernel(a, a, gamma) + kernel(b, b, gamma) - 2 * kernel(a, b, gamma)
    return total


def slow_median(members):
    pooled = [score for member in members for score in member]
    distances = sorted((x - y) ** 2 for x, y in combinations(pooled, 2))
    return max(distances[(len(distances) - 1) // 2], torch.finfo(torch.float64).eps)


def distance(name, scores):
    """D, from the penalty 1 / (D + eps)."""
    return (1 / TERMS[name](Observation(scores))).item() - 1e-12


@settings(max_examples=40)
@given(data=st.data())
def test_mmd_is_the_published_sum(any_scores, data):
    scores = data.draw(any_scores)
    expected = slow([group.tolist() for group in scores.values()], published)
    assert distance("mmd", scores) == pytest.approx(expected, rel=1e-9, abs=1e-13)


@settings(max_examples=40)
@given(data=st.data())
def test_mmd_global_is_the_published_sum_of_one_group(any_scores, data):
    scores = data.draw(any_scores)
    expected = slow([torch.cat(list(scores.values()), dim=1).tolist()], published)
    assert distance("mmd_global", scores) == pytest.approx(expected, rel=1e-9, abs=1e-13)


@settings(max_examples=40)
@given(data=st.data())
def test_mmd_textbook_is_the_double_sum(any_scores, data):
    scores = data.draw(any_scores)
    expected = slow([group.tolist() for group in scores.values()], textbook)
    assert distance("mmd_textbook", scores) == pytest.approx(expected, rel=1e-9, abs=1e-13)


@settings(max_examples=40)
@given(data=st.data())
def test_mmd_median_takes_the_median_distance(any_scores, data):
    scores = data.draw(any_scores)
    expected = slow([group.tolist() for group in scores.values()], textbook, slow_median)
    assert distance("mmd_median", scores) == pytest.approx(expected, rel=1e-6, abs=1e-11)


def test_median_of_many_scores_is_near_the_exact_one():
    scores = torch.randn(1, 3, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert median(scores).item() == pytest.approx(slow_median(scores[0].tolist()), rel=0.01)


@pytest.mark.parametrize("chunk", [1, 50, 130])
def test_chunks_change_nothing(chunk, monkeypatch, random_scores):
    def value_and_slope():
        scores = random_scores(7, 7, 4)
        value = squared_mmd(scores, textbook_kernel, width).sum()
        return value, torch.cat(torch.autograd.grad(value, list(scores.values())), dim=1)

    whole, slope = value_and_slope()
    monkeypatch.setattr(mmd_textbook, "CHUNK", chunk)
    parts, slope_by_parts = value_and_slope()
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(slope_by_parts, slope)


class Largest(TorchDispatchMode):
    """The most elements that any tensor made meanwhile has."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("name", ["mmd_textbook", "mmd_median"])
def test_wide_layers_fit_in_memory(name):
    """4096 channels: one pair at once would be 67 MB, and the 15 kernels of 5 members 1 GB."""
    scores = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with Largest() as largest:
        TERMS[name](Observation({"fc": scores})).backward()
    assert largest.elements * 4 <= 8 * 2**20, "two buffers of CHUNK float32 values"
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("identical", [True, False])
@pytest.mark.parametrize("kernel", [published_kernel, textbook_kernel])
@pytest.mark.parametrize("bandwidth", [width, median])
def test_gradient_of_the_distance_is_its_slope(bandwidth, kernel, identical, random_scores):
    """At identical members the penalty is too steep for finite differences; the distance within it is not."""
    scores = random_scores(5)["layer0"].detach()
    scores = (scores[:1].repeat(3, 1) if identical else scores).requires_grad_()
    gamma = bandwidth(scores.detach()[None])

    def value(scores):
        return squared_mmd({"layer": scores}, kernel, lambda _: gamma)

    assert value(scores).any() != identical
    assert torch.autograd.gradcheck(value, scores)


@pytest.mark.parametrize("name", ["mmd", "mmd_global", "mmd_textbook", "mmd_median"])
def test_blind_to_which_channels(name):
    """Two disjoint masks of the same values are as far apart as two equal ones: not at all. Others see it."""
    assert TERMS[name](DISJOINT).item() == TERMS[name](ALIKE).item() == pytest.approx(1e12)
    assert TERMS["cosine"](DISJOINT) <= TERMS["cosine"](ALIKE) - 0.5
    assert TERMS["overlap"](DISJOINT) <= TERMS["overlap"](ALIKE) - 0.3


def test_published_distance_can_be_negative():
    """It averages before the exponential: no kernel, no distance."""
    draws = [torch.randn(2, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(40)]
    assert any(distance("mmd", {"layer": scores}) < 0 for scores in draws)
    assert all(distance("mmd_textbook", {"layer": scores}) > 0 for scores in draws)


@pytest.mark.parametrize(("name", "fades"), [("mmd", True), ("mmd_textbook", True), ("mmd_median", False)])
def test_wide_layers_feel_no_pressure_unless_by_the_median(name, fades):
    """One member's scores are twice another's, at three widths."""
    quantiles = {c: torch.linspace(-2, 2, c, dtype=torch.float64) for c in (16, 64, 256)}
    by_width = [distance(name, {"layer": torch.stack([q, 2 * q])}) for q in quantiles.values()]
    assert all((wide < narrow / 3) == fades for narrow, wide in pairwise(by_width))


def test_float32_resolves_the_widest_layer():
    """At 4096 channels k is within 1e-3 of one and D is 3e-8: computed from k itself it would be rounding error."""
    scores = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores[1] = 1.1 * scores[0]
    assert distance("mmd", {"fc": scores.float()}) == pytest.approx(distance("mmd", {"fc": scores}), rel=1e-2)


@pytest.mark.parametrize("name", ["mmd_textbook", "mmd_median"])
def test_rounding_makes_no_reward_of_the_textbook_penalty(name):
    """The same scores in another order: D is zero but for the order of summation."""
    for seed in range(40):
        scores = torch.randn(1, 40, generator=torch.Generator().manual_seed(seed))
        assert TERMS[name](Observation({"layer": torch.cat([scores, scores.flip(1)])})) > 0
