"""How much an ensemble doubts its answers, and whether it doubts the wrong ones more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.metrics import checked_answers
from structured_ensembles.evaluation.subject import Subject
from structured_ensembles.prediction.uncertainty import disagreement, pairwise_kl, variation_ratio

BARS = 20
"""Of a histogram of entropies."""

Histogram: TypeAlias = dict[str, tuple[float, ...]]
"""How many of each group have which predictive entropy: ``edges`` are 21, in nats, and by group there are 20 counts."""


@dataclass(frozen=True)
class Uncertainty:
    """Means over all examples, in nats but for the two shares.

    Attributes:
        predictive_entropy: Of the combined prediction.
        expected_entropy: Of the members' own predictions.
        mutual_information: Predictive minus expected entropy.
        variation_ratio: Share of members that did not vote for the most popular class.
        disagreement: Share of pairs of members that vote for different classes; 0 for one member.
        pairwise_kl: Mean of KL(p_i || p_j) over ordered pairs of members; 0 for one member.
        entropy_right: Predictive entropy of the right answers only; NaN if there are none.
        entropy_wrong: Of the wrong answers only; NaN if there are none.
        histogram: Of the predictive entropy of ``right`` and of ``wrong`` answers.
    """

    predictive_entropy: float
    expected_entropy: float
    mutual_information: float
    variation_ratio: float
    disagreement: float
    pairwise_kl: float
    entropy_right: float
    entropy_wrong: float
    histogram: Histogram


def measured(subject: Subject) -> Uncertainty:
    """Of its answers to the test images."""
    return entropies(subject.answers)


def entropies(answers: Answers) -> Uncertainty:
    """Every kind of doubt, on average.

    Args:
        answers: With labels.

    Raises:
        DataError: The labels are missing, or the answers cannot be measured (see `metrics`).
    """
    checked_answers(answers)
    prediction, correct = answers.prediction, answers.correct
    classes = answers.logits.shape[2]
    right, wrong = prediction.predictive_entropy[correct], prediction.predictive_entropy[~correct]
    return Uncertainty(
        predictive_entropy=_mean(prediction.predictive_entropy),
        expected_entropy=_mean(prediction.expected_entropy),
        mutual_information=_mean(prediction.mutual_information),
        variation_ratio=_mean(variation_ratio(prediction.votes, classes)),
        disagreement=_mean(disagreement(prediction.votes)),
        pairwise_kl=_mean(pairwise_kl(answers.logits)),
        entropy_right=_mean(right),
        entropy_wrong=_mean(wrong),
        histogram=histogram(classes, right=right, wrong=wrong),
    )


def histogram(classes: int, **groups: Tensor) -> Histogram:
    """Of the entropies of each group, for K classes."""
    edges = entropy_edges(classes)
    return {"edges": edges, **{name: entropy_counts(values, edges) for name, values in groups.items()}}


def entropy_edges(classes: int) -> tuple[float, ...]:
    """The edges between the bars of a histogram of entropies of K classes: 21 numbers from 0 to ln K, in nats."""
    highest = math.log(max(classes, 2))  # a single class has no entropy, but a picture needs some width
    return tuple(highest * i / BARS for i in range(BARS + 1))


def entropy_counts(values: Tensor, edges: tuple[float, ...]) -> tuple[int, ...]:
    """How many of N entropies lie between neighbouring edges: [edge, next edge).

    What lies outside counts in the first or last bar: rounding puts entropies just below 0 or just above ln K.
    """
    inner = torch.tensor(edges[1:-1], dtype=torch.float64)
    index = torch.bucketize(values.double(), inner, right=True)
    return tuple(int(count) for count in index.bincount(minlength=len(edges) - 1))


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
