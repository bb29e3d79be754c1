"""Whether confidence is what it says: calibration errors, before and after one temperature.

Shapes: N examples, K classes. Every calibration error is from 0 (calibrated) to 1, takes what `metrics.ece` takes and
raises what it raises.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.metrics import (
    Quality,
    Reliability,
    binned,
    check_bins,
    checked,
    checked_answers,
    ece,
    quality,
    reliability,
    right_answers,
    running_sum,
)
from structured_ensembles.evaluation.subject import Subject
from structured_ensembles.prediction.temperature import temper

PUBLISHED_BINS = 30


@dataclass(frozen=True)
class CalibrationMetrics(Quality):
    """How good one predictor's probabilities are, by every calibration error.

    Attributes:
        ece_30: The expected calibration error with 30 bins, as published.
        adaptive_ece: The same with bins of equally many examples.
        classwise_ece: Mean over classes of each class's own calibration error.
        maximum_ce: The worst bin's calibration error.
    """

    ece_30: float
    adaptive_ece: float
    classwise_ece: float
    maximum_ce: float


@dataclass(frozen=True)
class Calibration:
    """The calibration of one predictor on one data set.

    Attributes:
        bins: How many every calibration error has, but for ``ece_30``.
        temperature: What the calibrated probabilities were made with; None if there is none.
        uncalibrated: Of the probabilities as they are.
        calibrated: At the temperature; None without one.
        reliability: Of the probabilities as they are.
    """

    bins: int
    temperature: float | None
    uncalibrated: CalibrationMetrics
    calibrated: CalibrationMetrics | None
    reliability: Reliability


def measured(subject: Subject) -> Calibration:
    """Of its answers to the test images."""
    return calibration(subject.answers, subject.extent.bins, subject.summary.get("temperature"))


def calibration(answers: Answers, bins: int = 15, temperature: float | None = None) -> Calibration:
    """Measure the calibration of the combined prediction, as it is and at a temperature.

    Args:
        answers: With labels.
        bins: How many the calibration errors have.
        temperature: Of the ensemble, from held-out data (`temperature.fit_temperature`).

    Raises:
        DataError: The labels are missing, or the answers cannot be measured (see `metrics`).
        SettingsError: ``bins`` is below 1, or the temperature is not a positive finite number.
    """
    labels = checked_answers(answers)
    probabilities = answers.prediction.probabilities
    calibrated = None
    if temperature is not None:  # in float64: rounding to float32 could make a tie, and so change an answer
        calibrated = _metrics(temper(probabilities.double(), temperature), labels, bins)
    return Calibration(
        bins=bins,
        temperature=temperature,
        uncalibrated=_metrics(probabilities, labels, bins),
        calibrated=calibrated,
        reliability=reliability(probabilities, labels, bins),
    )


def _metrics(probabilities: Tensor, labels: Tensor, bins: int) -> CalibrationMetrics:
    return CalibrationMetrics(
        **vars(quality(probabilities, labels, bins)),
        ece_30=ece(probabilities, labels, PUBLISHED_BINS),
        adaptive_ece=adaptive_ece(probabilities, labels, bins),
        classwise_ece=classwise_ece(probabilities, labels, bins),
        maximum_ce=maximum_ce(probabilities, labels, bins),
    )


def adaptive_ece(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Calibration error of the most probable class, in bins of equally many examples (Nguyen and O'Connor 2015).

    The examples are sorted by confidence and cut into ``bins`` parts whose sizes differ by one at the most. A cut
    through examples of equal confidence deals them out evenly (`metrics.running_sum`): many are exactly 1 in float32,
    and their order means nothing. With fewer examples than bins each is a bin of its own.
    """
    check_bins(bins)
    right = right_answers(probabilities, labels)
    confidence = probabilities.amax(dim=1).double()
    size, longer = divmod(len(labels), bins)
    ends = [i * size + min(i, longer) for i in range(bins + 1)]
    surplus = running_sum(confidence, confidence - right.double())[ends].diff()
    return float(surplus.abs().sum() / len(labels))


def classwise_ece(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean over ALL classes of the error of p(class) as the confidence that it is the label (Kull et al. 2019).

    A class without a label counts like any other. With many classes most p(class) are near 0, and so is the mean.
    """
    labels = checked(probabilities, labels)
    classes = range(probabilities.shape[1])
    return sum(binned(probabilities[:, k], labels == k, bins).ece for k in classes) / len(classes)


def maximum_ce(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """The largest abs(accuracy - confidence) of any bin that is not empty (Naeini et al. 2015).

    A bin of few examples can decide it: read it beside the counts of `reliability`.
    """
    curve = reliability(probabilities, labels, bins)
    filled = zip(curve.confidence, curve.accuracy, curve.count, strict=True)
    return max(abs(right - sure) for sure, right, count in filled if count)
