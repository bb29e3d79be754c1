from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.entry import plain
from structured_ensembles.evaluation.metrics import Metrics, accuracy, brier, ece, measure, nll, reliability

CASES = st.tuples(st.integers(1, 60), st.integers(2, 7), st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 6.0]))
BINS = st.integers(1, 30)


def draw(case: tuple[int, int, int, float]) -> tuple[Tensor, Tensor]:
    examples, classes, seed, spread = case
    generator = torch.Generator().manual_seed(seed)
    probabilities = (spread * torch.randn(examples, classes, generator=generator)).softmax(1)
    return probabilities, torch.randint(classes, (examples,), generator=generator)


@given(CASES)
def test_accuracy_and_likelihood_against_scikit_learn(case):
    probabilities, labels = draw(case)
    wide = probabilities.double()
    assert accuracy(probabilities, labels) == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    oracle = log_loss(labels, wide / wide.sum(1, keepdim=True), labels=range(case[1]))
    assert nll(probabilities, labels) == pytest.approx(oracle, rel=1e-5, abs=1e-6)


@given(CASES)
def test_brier_against_a_slow_loop(case):
    probabilities, labels = draw(case)
    rows = zip(probabilities.tolist(), labels.tolist(), strict=True)
    total = sum(sum((p - (k == label)) ** 2 for k, p in enumerate(row)) for row, label in rows)
    assert brier(probabilities, labels) == pytest.approx(total / len(labels))


def test_brier_of_two_classes_is_twice_scikit_learns():
    probabilities, labels = draw((50, 2, 0, 1.0))
    assert brier(probabilities, labels) == pytest.approx(2 * brier_score_loss(labels, probabilities[:, 1].double()))


@given(CASES, BINS)
def test_calibration_error_against_torchmetrics(case, bins):
    probabilities, labels = draw(case)
    edges = torch.linspace(0, 1, bins + 1)
    assume(not torch.isin(probabilities.amax(1), edges).any())  # its bins are closed on the left
    oracle = multiclass_calibration_error(probabilities, labels, num_classes=case[1], n_bins=bins, norm="l1")
    assert ece(probabilities, labels, bins) == pytest.approx(oracle.item(), abs=1e-5)


@given(CASES, BINS)
def test_reliability_against_a_slow_loop(case, bins):
    probabilities, labels = draw(case)
    curve = reliability(probabilities, labels, bins)
    edges = torch.linspace(0, 1, bins + 1).tolist()
    answers = [(p.max().item(), p.argmax().item() == y) for p, y in zip(probabilities, labels.tolist(), strict=True)]
    for i in range(bins):
        inside = [(sure, right) for sure, right in answers if edges[i] < sure <= edges[i + 1]]
        assert curve.count[i] == len(inside)
        if inside:
            assert curve.confidence[i] == pytest.approx(sum(sure for sure, _ in inside) / len(inside))
            assert curve.accuracy[i] == pytest.approx(sum(right for _, right in inside) / len(inside))
        else:
            assert math.isnan(curve.confidence[i])
            assert math.isnan(curve.accuracy[i])


@given(CASES, BINS)
def test_calibration_error_bounds_the_gap_of_confidence_and_accuracy(case, bins):
    probabilities, labels = draw(case)
    gap = abs(probabilities.amax(1).mean().item() - accuracy(probabilities, labels))
    assert gap - 1e-6 <= ece(probabilities, labels, bins) <= 1
    assert ece(probabilities, labels, 1) == pytest.approx(gap, abs=1e-6)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    tenths = torch.tensor([0.6, 0.7, 0.8, 0.9, 1.0])
    curve = reliability(torch.stack([tenths, 1 - tenths], dim=1), torch.zeros(5, dtype=torch.int64), bins=10)
    assert curve.count == (0, 0, 0, 0, 0, 1, 1, 1, 1, 1)


def test_full_confidence_shares_a_bin_with_nearly_full_confidence():
    # right at 0.96, wrong at 1.0: the errors of one bin cancel to |0.98 - 0.5|
    probabilities, labels = torch.tensor([[0.96, 0.04], [1.0, 0.0]]), torch.tensor([0, 1])
    assert ece(probabilities, labels, bins=10) == pytest.approx(abs((0.96 + 1) / 2 - 1 / 2))


def test_perfect_and_hopeless_answers():
    right = measure(torch.eye(3), torch.arange(3))
    assert plain(right) == {**dataclasses.asdict(Metrics(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3)), "entropy_wrong": None}
    wrong = measure(torch.eye(3), torch.tensor([1, 2, 0]))
    worst = -math.log(torch.finfo(torch.float32).tiny)
    assert (wrong.accuracy, wrong.brier, wrong.ece) == pytest.approx((0, 2, 1))
    assert wrong.nll == pytest.approx(worst)
    assert math.isnan(wrong.entropy_right)
    assert nll(torch.eye(3).double(), torch.tensor([1, 2, 0])) == pytest.approx(worst)


@given(CASES, BINS)
def test_measure_gathers_the_single_functions(case, bins):
    probabilities, labels = draw(case)
    metrics = measure(probabilities, labels, bins)
    right = probabilities.argmax(1) == labels
    entropies = -(probabilities * probabilities.log()).sum(1)
    assert metrics == Metrics(
        accuracy=accuracy(probabilities, labels),
        nll=nll(probabilities, labels),
        brier=brier(probabilities, labels),
        ece=ece(probabilities, labels, bins),
        entropy_right=pytest.approx(entropies[right].mean().item(), nan_ok=True, abs=1e-6),
        entropy_wrong=pytest.approx(entropies[~right].mean().item(), nan_ok=True, abs=1e-6),
        examples=len(labels),
    )
    assert all(type(value) in (float, int) for value in dataclasses.asdict(metrics).values())
    assert json.loads(json.dumps(plain(metrics), allow_nan=False)) == plain(metrics)


def test_likelihood_sees_what_float32_can_still_hold():
    probabilities = torch.tensor([[1.0, 1e-30]])
    assert nll(probabilities, torch.tensor([1])) == pytest.approx(30 * math.log(10), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_probabilities_are_accepted_with_any_integer_labels(dtype):
    probabilities, labels = draw((40, 7, 3, 2.0))
    rounded = measure(probabilities.to(dtype), labels.to(torch.uint8))
    exact = measure(probabilities, labels)
    assert rounded.nll == pytest.approx(exact.nll, rel=0.02)
    assert rounded.entropy_right == pytest.approx(exact.entropy_right, rel=0.02)


GOOD = torch.tensor([[0.5, 0.5], [0.2, 0.8]])
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (GOOD[0], LABELS, r"probabilities \(2,\) and labels \(2,\)"),
        (GOOD, torch.tensor([0]), r"probabilities \(2, 2\) and labels \(1,\)"),
        (GOOD, LABELS[:, None], r"labels \(2, 1\)"),
        (GOOD[:0], LABELS[:0], r"probabilities \(0, 2\).*neither of them empty"),
        (GOOD.long(), LABELS, "probabilities are torch.int64"),
        (torch.tensor([[0.5, 0.5], [math.nan, 1.0]]), LABELS, "probabilities of 1 of 2 examples are NaN"),
        (torch.tensor([[0.5, 0.5], [2.0, -1.0]]), LABELS, "a probability is -1, below 0: .*not logits"),
        (torch.tensor([[0.5, 0.5], [0.4, 0.5]]), LABELS, "probabilities of example 1 sum to 0.9, not 1"),
        (torch.tensor([[0.5, 0.5], [math.inf, 0.5]]), LABELS, "probabilities of example 1 sum to inf"),
        (GOOD, torch.tensor([0, 2]), "labels from 0 to 2: with 2 classes they go from 0 to 1"),
        (GOOD, torch.tensor([-1, 0]), "labels from -1 to 0"),
        (GOOD, torch.tensor([0.0, 1.0]), "labels are torch.float32"),
        (GOOD, torch.tensor([True, False]), "labels are torch.bool"),
    ],
)
@pytest.mark.parametrize("function", [measure, accuracy, nll, brier, ece, reliability])
def test_what_cannot_be_measured_is_refused(function, probabilities, labels, message):
    with pytest.raises(DataError, match=message):
        function(probabilities, labels)


@pytest.mark.parametrize("function", [measure, ece, reliability])
def test_no_bins_are_refused(function):
    with pytest.raises(SettingsError, match="bins 0: pass 1 or more"):
        function(GOOD, LABELS, bins=0)
