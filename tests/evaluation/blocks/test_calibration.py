from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.blocks.calibration import adaptive_ece, calibration, classwise_ece, maximum_ce
from structured_ensembles.evaluation.metrics import accuracy, brier, ece, nll, reliability
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.temperature import temper

if TYPE_CHECKING:
    from types import ModuleType

CASES = st.tuples(st.integers(1, 60), st.integers(2, 7), st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 6.0]))
BINS = st.integers(1, 30)
ERRORS = [adaptive_ece, classwise_ece, maximum_ce]


@pytest.fixture(scope="module")
def library() -> ModuleType:
    """An independent judge, where it is installed."""
    return pytest.importorskip("torch_uncertainty.metrics.classification", exc_type=ImportError)


def draw(case: tuple[int, int, int, float]) -> tuple[Tensor, Tensor]:
    examples, classes, seed, spread = case
    generator = torch.Generator().manual_seed(seed)
    probabilities = (spread * torch.randn(examples, classes, generator=generator)).softmax(1)
    return probabilities, torch.randint(classes, (examples,), generator=generator)


def draw_answers(examples: int, classes: int = 5, seed: int = 0, members: int = 3) -> Answers:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (examples,), generator=generator)
    return Answers(3 * torch.randn(members, examples, classes, generator=generator), labels, Combine.PROBABILITIES)


def off_the_edges(probabilities: Tensor, bins: int) -> bool:
    """The other libraries' bins are closed on the left, ours on the right."""
    return not torch.isin(probabilities, torch.linspace(0, 1, bins + 1)).any()


@given(CASES, BINS)
def test_maximum_against_torchmetrics(case, bins):
    probabilities, labels = draw(case)
    assume(off_the_edges(probabilities.amax(1), bins))
    oracle = multiclass_calibration_error(probabilities, labels, num_classes=case[1], n_bins=bins, norm="max")
    assert maximum_ce(probabilities, labels, bins) == pytest.approx(oracle.item(), abs=1e-5)


@given(CASES, BINS)
def test_maximum_against_scikit_learn(case, bins):
    probabilities, labels = draw(case)
    confidence = probabilities.amax(1)
    assume(off_the_edges(confidence, bins))
    right = probabilities.argmax(1) == labels
    true, sure = calibration_curve(right, confidence.double(), n_bins=bins)
    assert maximum_ce(probabilities, labels, bins) == pytest.approx(abs(true - sure).max(), abs=1e-6)


@given(CASES, BINS)
def test_classwise_against_torchmetrics(case, bins):
    probabilities, labels = draw(case)
    assume(off_the_edges(probabilities, bins))
    oracles = [
        binary_calibration_error(probabilities[:, k].contiguous(), (labels == k).long(), n_bins=bins, norm="l1").item()
        for k in range(case[1])
    ]
    assert classwise_ece(probabilities, labels, bins) == pytest.approx(sum(oracles) / len(oracles), abs=1e-5)


@given(CASES, BINS)
def test_adaptive_and_classwise_against_torch_uncertainty(library, case, bins):
    probabilities, labels = draw(case)
    assume(off_the_edges(probabilities, bins))
    oracle = library.ClasswiseCalibrationError(num_classes=case[1], num_bins=bins)(probabilities, labels)
    assert classwise_ece(probabilities, labels, bins) == pytest.approx(oracle.item(), abs=1e-5)
    assume(len(probabilities.amax(1).unique()) == len(labels))  # at ties it takes whatever order its sort leaves
    adaptive = library.AdaptiveCalibrationError("multiclass", num_classes=case[1], num_bins=min(bins, len(labels)))
    oracle = adaptive(probabilities, labels)  # with more bins than examples it divides by zero
    assert adaptive_ece(probabilities, labels, bins) == pytest.approx(oracle.item(), abs=1e-5)


@given(CASES, BINS)
def test_adaptive_against_a_slow_loop(case, bins):
    probabilities, labels = draw(case)
    answers = sorted(
        (p.max().item(), p.argmax().item() == y) for p, y in zip(probabilities, labels.tolist(), strict=True)
    )
    total, start = 0.0, 0
    for i in range(bins):
        inside = answers[start : start + len(answers) // bins + (i < len(answers) % bins)]
        start += len(inside)
        total += abs(sum(sure - right for sure, right in inside))
    assume(len({sure for sure, _ in answers}) == len(answers))
    assert adaptive_ece(probabilities, labels, bins) == pytest.approx(total / len(answers), abs=1e-9)


@given(CASES, BINS, st.randoms(use_true_random=False))
def test_no_error_depends_on_the_order_of_the_examples(case, bins, random):
    probabilities, labels = draw(case)
    probabilities[::2] = torch.eye(case[1])[0]  # many are equally sure, of right and of wrong answers
    order = random.sample(range(len(labels)), len(labels))
    for error in ERRORS:
        shuffled = error(probabilities[order], labels[order], bins)
        assert error(probabilities, labels, bins) == pytest.approx(shuffled, abs=1e-12)


def test_a_cut_through_equal_confidence_deals_right_answers_out_evenly():
    probabilities, labels = torch.tensor([[1.0, 0.0]]).repeat(4, 1), torch.tensor([0, 0, 1, 1])
    # sorted as they come, the bins would be off by 0 and 1: here both are off by 1/2
    assert adaptive_ece(probabilities, labels, bins=2) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert adaptive_ece(probabilities, labels, bins=4) == pytest.approx(1 / 2)


@given(CASES, BINS)
def test_the_errors_are_ordered(case, bins):
    probabilities, labels = draw(case)
    assert 0 <= ece(probabilities, labels, bins) <= maximum_ce(probabilities, labels, bins) + 1e-12 <= 1 + 1e-6
    gap = abs(probabilities.double().amax(1).mean().item() - accuracy(probabilities, labels))
    assert gap - 1e-12 <= adaptive_ece(probabilities, labels, bins) <= 1
    assert adaptive_ece(probabilities, labels, 1) == pytest.approx(gap, abs=1e-12)
    assert 0 <= classwise_ece(probabilities, labels, bins) <= 1


def test_errors_of_known_answers():
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    labels = torch.tensor([0, 1, 0])
    assert maximum_ce(probabilities, labels, 10) == pytest.approx(0.8)
    assert adaptive_ece(probabilities, labels, 3) == pytest.approx((0.1 + 0.8 + 0.4) / 3)
    assert adaptive_ece(probabilities, labels, 2) == pytest.approx((abs(0.6 + 0.8 - 1) + 0.1) / 3)
    assert classwise_ece(probabilities, labels, 10) == pytest.approx((0.1 + 0.8 + 0.4) / 3)


@pytest.mark.parametrize("error", ERRORS)
def test_one_class_and_one_example_are_measured(error):
    assert error(torch.ones(4, 1), torch.zeros(4, dtype=torch.int64)) == 0
    assert error(torch.tensor([[0.75, 0.25]]), torch.tensor([0])) == pytest.approx(0.25)


def test_calibration_gathers_the_single_functions():
    answers = draw_answers(200)
    probabilities, labels = answers.prediction.probabilities, answers.labels
    found = calibration(answers, bins=12)
    assert dataclasses.asdict(found.uncalibrated) == {
        "accuracy": accuracy(probabilities, labels),
        "nll": nll(probabilities, labels),
        "brier": brier(probabilities, labels),
        "ece": ece(probabilities, labels, 12),
        "ece_30": ece(probabilities, labels, 30),
        "adaptive_ece": adaptive_ece(probabilities, labels, 12),
        "classwise_ece": classwise_ece(probabilities, labels, 12),
        "maximum_ce": maximum_ce(probabilities, labels, 12),
    }
    assert str(found.reliability) == str(reliability(probabilities, labels, 12))  # no NaN equals another
    assert (found.bins, found.temperature, found.calibrated) == (12, None, None)


def test_a_temperature_changes_everything_but_the_answers():
    answers = draw_answers(200)
    found = calibration(answers, temperature=2.5)
    assert (found.bins, found.temperature) == (15, 2.5)
    assert found.calibrated is not None
    assert found.calibrated.accuracy == found.uncalibrated.accuracy
    tempered = temper(answers.prediction.probabilities, 2.5)
    assert found.calibrated.nll == pytest.approx(nll(tempered, answers.labels), rel=1e-6)
    assert found.calibrated.brier == pytest.approx(brier(tempered, answers.labels), rel=1e-6)
    assert found.calibrated.nll != pytest.approx(found.uncalibrated.nll, rel=0.01)
    assert str(found.reliability) == str(calibration(answers).reliability)
    assert calibration(answers, temperature=1.0).calibrated == found.uncalibrated


def test_a_high_temperature_makes_no_ties():
    step = torch.finfo(torch.float32).eps
    logits = torch.tensor([[[0.5 - step, 0.5 + step]]]).log()
    answers = Answers(logits, torch.tensor([1]), Combine.PROBABILITIES)
    assert temper(answers.prediction.probabilities, 20.0).argmax() == 0  # both are 1/2 in float32
    found = calibration(answers, temperature=20.0)
    assert found.calibrated is not None
    assert found.calibrated.accuracy == found.uncalibrated.accuracy == 1


GOOD = torch.tensor([[0.5, 0.5], [0.2, 0.8]])
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (GOOD[0], LABELS, r"probabilities \(2,\) and labels \(2,\)"),
        (GOOD[:0], LABELS[:0], r"probabilities \(0, 2\).*neither of them empty"),
        (torch.tensor([[0.5, 0.5], [math.nan, 1.0]]), LABELS, "probabilities of 1 of 2 examples are NaN"),
        (torch.tensor([[0.5, 0.5], [0.4, 0.5]]), LABELS, "probabilities of example 1 sum to 0.9, not 1"),
        (GOOD, torch.tensor([0, 2]), "labels from 0 to 2: with 2 classes they go from 0 to 1"),
    ],
)
@pytest.mark.parametrize("error", ERRORS)
def test_what_cannot_be_measured_is_refused(error, probabilities, labels, message):
    with pytest.raises(DataError, match=message):
        error(probabilities, labels)


@pytest.mark.parametrize("error", ERRORS)
def test_no_bins_are_refused(error):
    with pytest.raises(SettingsError, match="bins 0: pass 1 or more"):
        error(GOOD, LABELS, bins=0)


def test_answers_that_cannot_be_measured_are_refused():
    answers = draw_answers(4)
    with pytest.raises(SettingsError, match="bins -1: pass 1 or more"):
        calibration(answers, bins=-1)
    with pytest.raises(SettingsError, match=r"temperature 0\.0: pass a positive number"):
        calibration(answers, temperature=0.0)
    with pytest.raises(DataError, match="these images have no labels"):
        calibration(Answers(answers.logits, None, answers.combine))
    with pytest.raises(DataError, match="neither of them empty"):
        calibration(draw_answers(0))
    broken = answers.logits.clone()
    broken[1, 2] = math.nan
    with pytest.raises(DataError, match="probabilities of 1 of 4 examples are NaN"):
        calibration(Answers(broken, answers.labels, answers.combine))
