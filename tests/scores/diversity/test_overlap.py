from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structured_ensembles.options.catalogue import TERMS
from structured_ensembles.scores.diversity import Observation
from structured_ensembles.scores.diversity.overlap import TEMPERATURE, soft_mask


def slow_mask(member):
    sizes = [abs(score) for score in member]
    centre = sorted(sizes)[(len(sizes) - 1) // 2]
    scale = max(sum(sizes) / len(sizes), 1e-8) * TEMPERATURE
    return [1 / (1 + math.exp(-(size - centre) / scale)) for size in sizes]


def slow(scores):
    values = []
    for group in scores.values():
        for a, b in combinations([slow_mask(member) for member in group.tolist()], 2):
            intersection = sum(min(x, y) for x, y in zip(a, b, strict=True))
            union = sum(max(x, y) for x, y in zip(a, b, strict=True))
            values.append(intersection / union)
    return sum(values) / len(values)


@settings(max_examples=40)
@given(data=st.data())
def test_is_the_mean_over_groups_and_pairs(any_scores, data):
    scores = data.draw(any_scores)
    assert TERMS["overlap"](Observation(scores)).item() == pytest.approx(slow(scores), abs=1e-9)


def test_near_the_true_overlap_of_decided_scores():
    """Of six channels each member uses the first or the last three, or two of the first and one of the last."""
    large, none = [9.0] * 3, [0.0] * 3
    front, back, mixed = [*large, *none], [*none, *large], [9.0, 9.0, 0.0, 9.0, 0.0, 0.0]
    masks = {name: torch.tensor([front, other]) for name, other in [("same", front), ("none", back), ("some", mixed)]}
    found = {name: TERMS["overlap"](Observation({"layer": scores})).item() for name, scores in masks.items()}
    assert found["same"] == 1
    assert found["none"] < found["some"] < found["same"]


def test_the_threshold_is_the_median_magnitude():
    scores = torch.tensor([[0.1, -5.0, 2.0, 3.0, -0.5]])
    mask = soft_mask(scores)
    assert mask[0, 2] == 1 / 2
    assert (mask > 1 / 2).tolist() == [[False, True, False, True, False]]


@settings(max_examples=40)
@given(data=st.data(), factor=st.sampled_from([-1.0, 0.01, 30.0]))
def test_scale_and_sign_of_a_member_are_irrelevant(any_scores, data, factor):
    scores = {name: group + 0.1 * group.sign() for name, group in data.draw(any_scores).items()}
    scaled = {name: torch.cat([group[:1] * factor, group[1:]]) for name, group in scores.items()}
    values = [TERMS["overlap"](Observation(each)).item() for each in (scores, scaled)]
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_undecided_scores_overlap_wholly():
    assert TERMS["overlap"](Observation({"layer": torch.tensor([[1.0, 1.0], [-1.0, 1.0]])})) == 1
