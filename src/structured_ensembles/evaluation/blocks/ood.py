"""Whether an ensemble notices what it was not trained on: out-of-distribution detection.

An image is scored, and the score should be higher for images from outside than for those from inside. How well it tells
them apart is measured without choosing a threshold, and the measures take ties as ties: no image is rejected before
another of the same score.

Shapes: N examples, M members, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from structured_ensembles.data.sources import Unlabelled
from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.answers import Answers, ask
from structured_ensembles.evaluation.blocks import synthetic
from structured_ensembles.evaluation.blocks.entropies import Histogram, histogram
from structured_ensembles.evaluation.subject import Subject

Doubt: TypeAlias = Callable[[Answers], Tensor]
"""Gives each example a number, (N,): the higher, the more unusual."""

RECALL = 0.95
"""The share of the images from inside that FPR95 lets pass."""


@dataclass(frozen=True)
class Detection:
    """How well a score tells two sets apart, each number from 0 to 1.

    Attributes:
        auroc: Probability that an image from outside scores higher than one from inside, a tie counting half: 0.5 is
            chance, 1 perfect, and it does not matter which of the two is called positive.
        aupr_in: Average precision with the images from INSIDE as positives; chance is their share of all images.
        aupr_out: The same with those from OUTSIDE as positives.
        fpr95: Share of the images from outside that pass for inside, at the strictest threshold that lets 95 % of
            those from inside pass, or more (inside is positive, as in Liang et al. 2018, ODIN): 0 is perfect.
    """

    auroc: float
    aupr_in: float
    aupr_out: float
    fpr95: float


@dataclass(frozen=True)
class OutOfDistribution:
    """What became of one set of images from outside.

    Attributes:
        name: Of the set.
        images: How many it holds.
        scores: By score (see `SCORES`), how well it tells them from the test images.
        histogram: Of the predictive entropy of images from ``inside`` and from ``outside``.
    """

    name: str
    images: int
    scores: dict[str, Detection]
    histogram: Histogram


def entropy(answers: Answers) -> Tensor:
    """(N,), the predictive entropy, in nats."""
    return answers.prediction.predictive_entropy


def mutual_information(answers: Answers) -> Tensor:
    """(N,), predictive minus expected entropy, in nats; the same for all if there is a single member."""
    return answers.prediction.mutual_information


def max_probability(answers: Answers) -> Tensor:
    """(N,), 1 - the largest of the combined probabilities (Hendrycks and Gimpel 2017, turned round), float64."""
    return 1 - answers.prediction.probabilities.double().amax(dim=1)


def energy(answers: Answers) -> Tensor:
    """(N,), the mean over members of -ln(sum over classes of exp(logit)): the free energy at temperature 1.

    Liu et al. 2020 (arXiv 2010.03759) define it for one network. Of an ensemble every member is scored and the scores
    are averaged (Xia and Bouganis 2022, arXiv 2207.07517); the energy of the mean logits would be another number. It
    sees how large the logits are, which no probability shows.
    """
    return -answers.logits.logsumexp(dim=2).mean(dim=0)


SCORES: Mapping[str, Doubt] = {
    "entropy": entropy,
    "mutual_information": mutual_information,
    "max_probability": max_probability,
    "energy": energy,
}
"""By name, what images are scored with."""


def measured(subject: Subject) -> list[OutOfDistribution] | None:
    """Of every set of unfamiliar images, the built-in ones first; a set that fails stops no other."""
    inside, (some, _) = subject.answers, subject.sample
    built_in = [Unlabelled(name, make(some, subject.extent.seed), ()) for name, make in synthetic.SETS.items()]

    def one(outside: Unlabelled) -> OutOfDistribution:
        answers = ask(subject.ensemble, outside.images, what=f"Answering {outside.name}")
        return out_of_distribution(inside, answers, outside.name)

    sets = [*built_in, *subject.outside]
    found = [subject.attempt(f"out_of_distribution: {outside.name}", partial(one, outside)) for outside in sets]
    return [part for part in found if part is not None] or None


def out_of_distribution(inside: Answers, outside: Answers, name: str) -> OutOfDistribution:
    """Measure how well one ensemble tells a set of images from those that it is tested on.

    Args:
        inside: Its answers about test images.
        outside: Its answers about the others; nobody needs to have labelled them.
        name: What the report calls them.

    Raises:
        DataError: One of the two is empty, holds logits that are NaN, or they are the answers of different ensembles.
    """
    _check(inside, outside, name)
    return OutOfDistribution(
        name=name,
        images=outside.logits.shape[1],
        scores={key: detection(score(inside), score(outside)) for key, score in SCORES.items()},
        histogram=histogram(inside.logits.shape[2], inside=entropy(inside), outside=entropy(outside)),
    )


def detection(inside: Tensor, outside: Tensor) -> Detection:
    """Measure how well a score tells images from outside by being higher.

    Args:
        inside: The scores of images from inside, of any number.
        outside: Those of images from outside, of any number.

    Raises:
        DataError: One of the two is not one-dimensional, is empty, or holds NaN or infinity.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    for where, scores in (("inside", inside), ("outside", outside)):
        _check_scores(where, scores)
    unusual = torch.cat([inside.double(), outside.double()]).numpy(force=True)
    is_outside = np.arange(len(unusual)) >= len(inside)
    return Detection(
        auroc=float(roc_auc_score(is_outside, unusual)),
        aupr_in=float(average_precision_score(~is_outside, -unusual)),
        aupr_out=float(average_precision_score(is_outside, unusual)),
        fpr95=_fpr95(~is_outside, -unusual),
    )


def _fpr95(is_inside: npt.NDArray[np.bool_], usual: npt.NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_curve

    # Left to itself the curve drops the points between two others on a line, of which ours may be one.
    false_positives, true_positives, _ = roc_curve(is_inside, usual, drop_intermediate=False)
    return float(false_positives[true_positives >= RECALL][0])


def _check(inside: Answers, outside: Answers, name: str) -> None:
    one, other = tuple(inside.logits.shape), tuple(outside.logits.shape)
    if one[::2] != other[::2]:
        raise DataError(f"{name}: logits {one} inside, but {other} outside: members and classes must agree")
    for where, answers in (("inside", inside), (f"outside ({name})", outside)):
        if answers.logits.shape[1] == 0:
            raise DataError(f"there are no images {where}: give one at least")
        broken = int(answers.logits.isnan().any(dim=2).any(dim=0).sum())
        if broken:
            raise DataError(f"the logits of {broken} of {answers.logits.shape[1]} images {where} are NaN")


def _check_scores(where: str, scores: Tensor) -> None:
    if scores.dim() != 1 or scores.numel() == 0:
        raise DataError(f"scores {where} of shape {tuple(scores.shape)}: pass (images,), with one image at least")
    broken = int((~scores.isfinite()).sum())
    if broken:
        raise DataError(f"{broken} of {len(scores)} scores {where} are NaN or infinite: look for NaN in the logits")
