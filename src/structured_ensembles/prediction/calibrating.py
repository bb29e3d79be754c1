"""What held-out examples say about how far an ensemble can be trusted: when to abstain, and one temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.temperature import fit_temperature
from structured_ensembles.prediction.uncertainty import check_finite, predict_from_logits, quartiles, threshold_above

GAMMAS = tuple(i / 3 for i in range(10))
"""The published grid: ten equal steps from 0 to 3."""


@dataclass(frozen=True)
class Abstention:
    """When to abstain, as chosen on held-out examples.

    Attributes:
        quartiles: q1 and q3 of the predictive entropies of right answers, in nats.
        gamma: The chosen one of `GAMMAS`.
        threshold: q3 + gamma (q3 - q1), in nats: abstain above it.
    """

    quartiles: tuple[float, float]
    gamma: float
    threshold: float


def choose_abstention(entropies: Tensor, correct: Tensor) -> Abstention | None:
    """Choose gamma: the one that rejects the largest share of wrong answers less that of right ones.

    That difference (Youden 1950) needs no price for an error. Among equals the largest gamma wins, which abstains
    least: where every held-out answer was right, there is nothing to catch.

    Args:
        entropies: (N,), predictive entropies of held-out examples, in nats.
        correct: (N,), bool, whether each was predicted correctly.

    Returns:
        None if no example was predicted correctly: nothing is known about what a right answer looks like.

    Raises:
        DataError: An entropy is NaN or infinite.
    """
    if not correct.any():
        return None
    check_finite(entropies)
    found = quartiles(entropies[correct])

    def gain(gamma: float) -> float:
        rejected = entropies > threshold_above(found, gamma)
        caught = int((rejected & ~correct).sum()) / max(int((~correct).sum()), 1)
        return caught - int((rejected & correct).sum()) / int(correct.sum())

    best = max(reversed(GAMMAS), key=gain)
    return Abstention(found, best, threshold_above(found, best))


def calibrate(logits: Tensor, labels: Tensor, combine: Combine) -> dict[str, Any]:
    """What a file remembers of it; None where nothing can be chosen.

    Args:
        logits: (M, N, K), what the members say about held-out examples.
        labels: (N,), on the same device.
        combine: How outputs are combined.
    """
    prediction = predict_from_logits(logits, combine)
    chosen = choose_abstention(prediction.predictive_entropy, prediction.classes == labels)
    return {
        "rejection_threshold": chosen and chosen.threshold,
        "rejection_gamma": chosen and round(chosen.gamma, 6),
        "correct_entropy_quartiles": chosen and list(chosen.quartiles),
        "temperature": round(fit_temperature(prediction.probabilities, labels), 6),
    }
