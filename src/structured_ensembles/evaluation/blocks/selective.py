"""What declining the least certain answers buys: risk against coverage, and rejection by entropy.

Coverage is the share of examples that are answered, the most certain first; risk is the share of wrong answers among
those. Among equally uncertain examples the answered ones are drawn at random, and every number is the expectation over
the draw: the order in which examples come changes nothing. (The file's order, or the order that a sort happens to
leave, can make ties look like a good ranking.)

Shapes: N examples. ``uncertainty`` is (N,), any floating number that is higher for a less certain answer; ``correct``
is (N,), bool. Every function raises a DataError if the two differ in shape, are empty, ``correct`` is not boolean, or
an uncertainty is NaN.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.metrics import checked_answers, running_sum
from structured_ensembles.evaluation.subject import Subject
from structured_ensembles.prediction.calibrating import GAMMAS
from structured_ensembles.prediction.uncertainty import Rejection, check_pairs, rejection_report, threshold_above


@dataclass(frozen=True)
class Curve:
    """Risk by coverage.

    Attributes:
        coverage: Rising, in (0, 1]: of the first example, and then of every hundredth of the examples.
        risk: At each coverage.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]


@dataclass(frozen=True)
class RejectionAtGamma:
    """What abstaining above q3 + gamma (q3 - q1) does; the shares are those of `uncertainty.Rejection`."""

    gamma: float
    threshold: float
    rejected_share: float
    right_share_of_rejected: float
    wrong_share_of_rejected: float
    accuracy_of_kept: float


@dataclass(frozen=True)
class Selective:
    """Selective prediction by the predictive entropy.

    Attributes:
        aurc: Area under the risk-coverage curve.
        augrc: Area under the generalised risk-coverage curve.
        coverage_at_5_risk: The largest coverage at which at most 5 % of the answers are wrong; 0 if there is none.
        risk_at_80_coverage: Share of wrong answers among the most certain 80 %.
        curve: Risk by coverage.
        threshold: The ensemble's own, in nats; None if it has none.
        gamma: What that was made with; None if it is not known.
        at_threshold: What abstaining above it does; None without one.
        by_gamma: The same for each published gamma; None without the held-out quartiles.
    """

    aurc: float
    augrc: float
    coverage_at_5_risk: float
    risk_at_80_coverage: float
    curve: Curve
    threshold: float | None
    gamma: float | None
    at_threshold: Rejection | None
    by_gamma: tuple[RejectionAtGamma, ...] | None


def measured(subject: Subject) -> Selective:
    """Of its answers to the test images."""
    held_out = subject.summary
    gamma, quartiles = held_out.get("rejection_gamma"), held_out.get("correct_entropy_quartiles")
    return selective(subject.answers, subject.threshold, gamma, quartiles)


def selective(
    answers: Answers,
    threshold: float | None = None,
    gamma: float | None = None,
    quartiles: tuple[float, float] | None = None,
) -> Selective:
    """Measure what declining answers of high predictive entropy does.

    Args:
        answers: With labels.
        threshold: In nats, from held-out data (`calibrating.choose_abstention`); infinity rejects nothing.
        gamma: What the threshold was made with.
        quartiles: q1 and q3 of the predictive entropies of held-out examples that were predicted correctly.

    Raises:
        DataError: The labels are missing, or the answers cannot be measured (see `metrics`).
        SettingsError: The threshold is NaN, or the quartiles are not two rising entropies.
    """
    checked_answers(answers)
    entropies, correct = answers.prediction.predictive_entropy, answers.correct
    return Selective(
        aurc=aurc(entropies, correct),
        augrc=augrc(entropies, correct),
        coverage_at_5_risk=coverage_at_risk(entropies, correct, 0.05),
        risk_at_80_coverage=risk_at_coverage(entropies, correct, 0.8),
        curve=risk_coverage(entropies, correct),
        threshold=threshold,
        gamma=gamma,
        at_threshold=answers.rejection(threshold),
        by_gamma=None if quartiles is None else reject_by_gamma(entropies, correct, quartiles),
    )


def aurc(uncertainty: Tensor, correct: Tensor) -> float:
    """Mean of the risk over coverages 1/N, 2/N, ..., 1 (Geifman and El-Yaniv 2017); 0 is best.

    The first answers weigh most: a lone wrong answer costs (1 + 1/2 + ... + 1/N) / N at the top, 1 / N^2 at the end.
    """
    return float(_risks(uncertainty, correct).mean())


def augrc(uncertainty: Tensor, correct: Tensor) -> float:
    """Area under coverage times risk, joined by straight lines from 0 at coverage 0 (Traub et al. 2024); 0 is best.

    The chance that an example is answered and wrong, at a coverage drawn from 0 to 1. It equals
    (1 - AUROC) accuracy error + error^2 / 2, with the AUROC of telling wrong answers by their uncertainty.
    """
    wrong = _wrong(uncertainty, correct) / len(correct)
    return float(torch.trapezoid(wrong, dx=1 / len(correct)))


def coverage_at_risk(uncertainty: Tensor, correct: Tensor, risk: float) -> float:
    """The largest coverage at which the risk is at most ``risk``, from 0 to 1.

    Where no coverage is good enough it is 0, not NaN: who declines everything makes no error, and a mean over seeds
    must not leave out the worst of them.

    Raises:
        SettingsError: ``risk`` is not in [0, 1].
    """
    if not 0 <= risk <= 1:
        raise SettingsError(f"risk {risk}: it is a share of wrong answers, pass a number from 0 to 1, such as 0.05")
    good = torch.nonzero(_risks(uncertainty, correct) <= risk)
    return (int(good.max()) + 1) / len(correct) if len(good) else 0.0


def risk_at_coverage(uncertainty: Tensor, correct: Tensor, coverage: float) -> float:
    """The risk when at least this share of the examples is answered: the most certain ceil(coverage N).

    Raises:
        SettingsError: ``coverage`` is not in (0, 1].
    """
    if not 0 < coverage <= 1:
        raise SettingsError(f"coverage {coverage}: it is a share of answers, pass a number in (0, 1], such as 0.8")
    answered = math.ceil(coverage * len(correct) - 1e-9)  # 0.07 * 100 is 7.000000000000001
    return float(_risks(uncertainty, correct)[max(answered, 1) - 1])


def risk_coverage(uncertainty: Tensor, correct: Tensor) -> Curve:
    """The risk at each hundredth of coverage, rounded up to whole examples: 101 points at the most."""
    risks, total = _risks(uncertainty, correct), len(correct)
    answered = sorted({1, *(-(-total * percent // 100) for percent in range(1, 101))})
    return Curve(
        coverage=tuple(count / total for count in answered), risk=tuple(float(risks[count - 1]) for count in answered)
    )


def reject_by_gamma(entropies: Tensor, correct: Tensor, quartiles: tuple[float, float]) -> tuple[RejectionAtGamma, ...]:
    """What abstaining above q3 + gamma (q3 - q1) does, for each published gamma.

    Args:
        entropies: (N,), predictive entropies, in nats.
        correct: (N,), bool.
        quartiles: q1 and q3, in nats, of held-out data: never of the examples that are measured here.

    Raises:
        DataError: See `uncertainty.rejection_report`.
        SettingsError: The quartiles are not finite, negative, or q1 is above q3.
    """
    q1, q3 = quartiles
    if not 0 <= q1 <= q3 < math.inf:
        raise SettingsError(f"quartiles {q1} and {q3}: pass the lower and the upper quartile of entropies, in nats")
    thresholds = {gamma: threshold_above(quartiles, gamma) for gamma in GAMMAS}
    return tuple(
        RejectionAtGamma(gamma, threshold, **asdict(rejection_report(entropies, correct, threshold)))
        for gamma, threshold in thresholds.items()
    )


def _risks(uncertainty: Tensor, correct: Tensor) -> Tensor:
    """(N,), float64: the risk when the 1, 2, ..., N most certain examples are answered."""
    return _wrong(uncertainty, correct)[1:] / torch.arange(1, len(correct) + 1)


def _wrong(uncertainty: Tensor, correct: Tensor) -> Tensor:
    """(N + 1,), float64: how many of the 0, 1, ..., N most certain answers are wrong."""
    check_pairs(uncertainty, correct, "uncertainty", "uncertainties")
    broken = int(uncertainty.isnan().sum())
    if broken:
        raise DataError(f"{broken} of {len(correct)} uncertainties are NaN: look for NaN in the logits")
    return running_sum(uncertainty, ~correct)
