from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structured_ensembles.options.catalogue import TERMS
from structured_ensembles.scores.diversity import Observation


def value(*members):
    return TERMS["cosine"](Observation({"layer": torch.tensor(members)})).item()


def slow(scores):
    values = []
    for group in scores.values():
        for a, b in combinations(group.tolist(), 2):
            dot = sum(x * y for x, y in zip(a, b, strict=True)) / len(a)
            squares = [sum(x * x for x in member) / len(member) + 1e-8 for member in (a, b)]
            values.append((1 + dot / (squares[0] * squares[1]) ** 0.5) / 2)
    return sum(values) / len(values)


@settings(max_examples=40)
@given(data=st.data())
def test_is_the_mean_over_groups_and_pairs(any_scores, data):
    scores = data.draw(any_scores)
    assert TERMS["cosine"](Observation(scores)).item() == pytest.approx(slow(scores), abs=1e-12)


def test_parallel_orthogonal_opposite():
    assert value([1.0, 2.0], [2.0, 4.0]) == pytest.approx(1)
    assert value([1.0, 0.0], [0.0, 3.0]) == pytest.approx(1 / 2)
    assert value([1.0, 2.0], [-1.0, -2.0]) == pytest.approx(0)


def test_sees_an_exchange_of_channels():
    assert value([3.0, 1.0, 0.0], [0.0, 1.0, 3.0]) < value([3.0, 1.0, 0.0], [3.0, 1.0, 0.0]) - 0.4


def test_zeros_are_orthogonal_to_anything():
    assert value([0.0, 0.0], [1.0, 2.0]) == value([0.0, 0.0], [0.0, 0.0]) == 1 / 2


def test_does_not_see_that_opposite_signs_use_the_same_channels():
    """A documented weakness: overlap sees it."""
    members = torch.tensor([[3.0, 0.1, 2.0, 0.1], [-3.0, -0.1, -2.0, -0.1]])
    assert TERMS["cosine"](Observation({"layer": members})).item() == pytest.approx(0, abs=1e-6)
    assert TERMS["overlap"](Observation({"layer": members})).item() == 1
