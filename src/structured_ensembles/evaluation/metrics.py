"""How good probabilities are: accuracy, likelihood, calibration.

Shapes: N examples, K classes. What takes probabilities (N, K) and labels (N,) refuses, with a DataError that names
the value, what is empty, of another shape, not a distribution, or labelled outside 0 ... K - 1. Sums over examples run
in float64, so that a number does not depend on the order of a large test set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.prediction.uncertainty import entropy


@dataclass(frozen=True)
class Quality:
    """How good one predictor's probabilities are.

    Attributes:
        accuracy: Share of right answers, 0 to 1.
        nll: Mean negative log-likelihood of the labels, in nats.
        brier: Mean over examples of the summed squared differences to the one-hot label, 0 to 2.
        ece: Expected calibration error with bins of equal width, 0 to 1.
    """

    accuracy: float
    nll: float
    brier: float
    ece: float


@dataclass(frozen=True)
class Metrics(Quality):
    """The measurements of one predictor on one data set.

    Attributes:
        entropy_right: Mean entropy of the right answers, in nats; NaN if there are none.
        entropy_wrong: Mean entropy of the wrong answers, in nats; NaN if there are none.
        examples: N.
    """

    entropy_right: float
    entropy_wrong: float
    examples: int


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, in bins of equal width; bin i holds confidences in (i / bins, (i + 1) / bins].

    Attributes:
        confidence: Mean confidence of each bin, NaN in an empty one.
        accuracy: Accuracy of each bin, NaN in an empty one.
        count: Examples in each bin.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    count: tuple[int, ...]

    @property
    def ece(self) -> float:
        """Mean over examples of their bin's abs(accuracy - confidence) (Naeini et al. 2015, Guo et al. 2017)."""
        bins = zip(self.confidence, self.accuracy, self.count, strict=True)
        return sum(n * abs(right - sure) for sure, right, n in bins if n) / sum(self.count)


def measure(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Metrics:
    """Everything at once.

    Args:
        probabilities: (N, K), floating.
        labels: (N,), integers.
        bins: How many the calibration error has (usual 15, published 30).

    Raises:
        DataError: See the head of this file.
        SettingsError: ``bins`` is below 1.
    """
    right = right_answers(probabilities, labels)
    entropies = entropy(probabilities).double()
    return Metrics(
        **vars(quality(probabilities, labels, bins)),
        entropy_right=float(entropies[right].mean()),
        entropy_wrong=float(entropies[~right].mean()),
        examples=len(labels),
    )


def quality(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Quality:
    """What every predictor is measured by; takes and raises what `measure` does."""
    return Quality(
        accuracy=accuracy(probabilities, labels),
        nll=nll(probabilities, labels),
        brier=brier(probabilities, labels),
        ece=ece(probabilities, labels, bins),
    )


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """The share of examples whose most probable class (the first, at a tie) is the label."""
    return float(right_answers(probabilities, labels).double().mean())


def nll(probabilities: Tensor, labels: Tensor) -> float:
    """Mean of -ln p(label), in nats.

    A probability below float32's smallest normal number (1.2e-38) counts as that number, whatever the dtype: a label
    thought impossible costs 87.3 nats, not infinity.
    """
    labels = checked(probabilities, labels)
    of_label = probabilities.gather(1, labels[:, None]).double()
    return -float(of_label.clamp_min(torch.finfo(torch.float32).tiny).log().mean())


def brier(probabilities: Tensor, labels: Tensor) -> float:
    """Mean over examples of the sum over classes of (p - one-hot label)^2: 0 is best, 2 is worst (Brier 1950)."""
    labels = checked(probabilities, labels)
    errors = probabilities.double().scatter_add(1, labels[:, None], -torch.ones_like(labels[:, None]).double())
    return float(errors.square().sum(dim=1).mean())


def ece(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error of the most probable class, with bins of equal width.

    torchmetrics puts a confidence of exactly 1 into a bin of its own; here it belongs to the last, as defined.
    """
    return reliability(probabilities, labels, bins).ece


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Reliability:
    """Confidence, accuracy and count by bin of confidence: what the calibration error and its picture are made of.

    Raises:
        DataError: See the head of this file.
        SettingsError: ``bins`` is below 1.
    """
    right = right_answers(probabilities, labels)
    return binned(probabilities.amax(dim=1), right, bins)


def binned(confidence: Tensor, right: Tensor, bins: int) -> Reliability:
    """The reliability of any event: how sure one was of it against how often it came true.

    Args:
        confidence: (N,), from 0 to 1.
        right: (N,), bool.
        bins: 1 or more, of equal width.

    Raises:
        SettingsError: ``bins`` is below 1.
    """
    check_bins(bins)
    confidence, right = confidence.cpu().contiguous(), right.cpu()  # a GPU would add weighted counts in any order
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    # edges of the confidence's own precision: 0.3 in float32 is then on the edge 3/10, not just above it
    index = torch.bucketize(confidence, edges[1:-1].to(confidence.dtype))
    count = index.bincount(minlength=bins)
    return Reliability(
        confidence=_tuple(index.bincount(confidence.double(), minlength=bins) / count),
        accuracy=_tuple(index.bincount(right.double(), minlength=bins) / count),
        count=tuple(int(n) for n in count),
    )


def running_sum(key: Tensor, values: Tensor) -> Tensor:
    """Sums of the values of the k examples with the lowest keys, for k from 0 to N: (N + 1,), float64, on the CPU.

    Among examples of equal key the k are drawn at random and the sum is the expectation over the draw: the order in
    which examples come changes nothing.

    Args:
        key: (N,).
        values: (N,).
    """
    keys, weights = (part.detach().cpu().double().numpy() for part in (key, values))
    _, index, count = np.unique(keys, return_inverse=True, return_counts=True)
    sums = np.bincount(index, weights)
    # straight lines between the ends of ties, so that whole numbers stay exact where there are none
    return torch.from_numpy(np.interp(np.arange(len(keys) + 1), [0, *count.cumsum()], [0, *sums.cumsum()]))


def right_answers(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(N,), bool: whether the most probable class is the label.

    Raises:
        DataError: See the head of this file.
    """
    labels = checked(probabilities, labels)
    return probabilities.argmax(dim=1) == labels


def checked(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The labels as int64 on the probabilities' device, both found to be sound.

    Raises:
        DataError: See the head of this file.
    """
    if probabilities.dim() != 2 or labels.shape != probabilities.shape[:1] or probabilities.numel() == 0:
        shapes = f"probabilities {tuple(probabilities.shape)} and labels {tuple(labels.shape)}"
        raise DataError(f"{shapes}: pass (examples, classes) and (examples,), neither of them empty")
    _check_distributions(probabilities)
    _check_labels(labels, probabilities.shape[1])
    return labels.to(probabilities.device, torch.int64)


def checked_answers(answers: Answers) -> Tensor:
    """The labels (N,) of answers, both found to be sound.

    Raises:
        DataError: There are no labels, or see the head of this file.
    """
    if answers.labels is None:
        raise DataError("these images have no labels: right and wrong answers cannot be told apart, pass labelled ones")
    return checked(answers.prediction.probabilities, answers.labels)


def check_bins(bins: int) -> None:
    """Refuse fewer bins than one.

    Raises:
        SettingsError: ``bins`` is below 1.
    """
    if bins < 1:
        raise SettingsError(f"bins {bins}: pass 1 or more; 15 is usual")


def _tuple(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _check_distributions(probabilities: Tensor) -> None:
    if not probabilities.is_floating_point():
        raise DataError(f"probabilities are {probabilities.dtype}: pass a floating type")
    lowest, sums = float(probabilities.min()), probabilities.double().sum(dim=1)
    if math.isnan(lowest):
        broken = int(probabilities.isnan().any(dim=1).sum())
        raise DataError(f"probabilities of {broken} of {len(sums)} examples are NaN: look for NaN in the logits")
    if lowest < 0:
        raise DataError(f"a probability is {lowest:g}, below 0: pass probabilities, not logits")
    worst = int((sums - 1).abs().argmax())
    # rounding each probability moves their sum by half a unit in the last place of 1 at the most
    if abs(float(sums[worst]) - 1) > max(1e-4, torch.finfo(probabilities.dtype).eps):
        raise DataError(f"probabilities of example {worst} sum to {float(sums[worst]):g}, not 1: apply softmax first")


def check_integers(labels: Tensor) -> None:
    """Refuse labels that are no whole numbers, with a DataError."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels are {labels.dtype}: pass class indices of an integer type")


def _check_labels(labels: Tensor, classes: int) -> None:
    check_integers(labels)
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < classes:
        raise DataError(f"labels from {low} to {high}: with {classes} classes they go from 0 to {classes - 1}")
