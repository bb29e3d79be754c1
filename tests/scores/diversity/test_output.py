from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.catalogue import TERMS
from structured_ensembles.scores.diversity import Observation


def observe(logits):
    return Observation({"layer": torch.zeros(len(logits), 2)}, logits=logits)


def entropy(probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def slow(logits):
    divergences = []
    for a, b in combinations(logits.softmax(dim=-1).tolist(), 2):
        for p, q in zip(a, b, strict=True):
            mixture = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
            divergences.append(entropy(mixture) - (entropy(p) + entropy(q)) / 2)
    return 1 - sum(divergences) / len(divergences) / math.log(2)


@settings(max_examples=40)
@given(
    members=st.integers(2, 4),
    batch=st.integers(1, 3),
    classes=st.integers(1, 4),
    scale=st.sampled_from([0.1, 1, 100]),
    seed=st.integers(0, 1000),
)
def test_is_the_mean_divergence(members, batch, classes, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(members, batch, classes, generator=generator, dtype=torch.float64)
    assert TERMS["output"](observe(logits)).item() == pytest.approx(slow(logits), abs=1e-9)


def test_agreement_and_contradiction():
    yes, no = [1000.0, 0.0], [0.0, 1000.0]
    assert TERMS["output"](observe(torch.tensor([[yes, no], [yes, no]]))).item() == pytest.approx(1)
    assert TERMS["output"](observe(torch.tensor([[yes, no], [no, yes]]))).item() == pytest.approx(0, abs=1e-6)
    assert TERMS["output"](observe(torch.tensor([[yes, no], [yes, yes]]))).item() == pytest.approx(1 / 2)


def test_certain_predictions_have_finite_gradients():
    logits = torch.tensor([[[1000.0, 0.0]], [[0.0, 1000.0]]], requires_grad=True)
    TERMS["output"](observe(logits)).backward()
    assert logits.grad.isfinite().all()


def test_logits_are_needed_even_without_the_registry():
    with pytest.raises(SettingsError, match="has no logits"):
        TERMS["output"].measure(Observation({"layer": torch.zeros(2, 2)}))
