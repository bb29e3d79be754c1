"""What an ensemble answers to images that were changed to deceive it, and whether it notices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from structured_ensembles.errors import SettingsError
from structured_ensembles.evaluation.answers import ask
from structured_ensembles.evaluation.attacks import EPSILONS, STEPS, check_epsilon, checked, fgsm, pgd
from structured_ensembles.evaluation.metrics import accuracy, nll
from structured_ensembles.evaluation.subject import Subject
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.progress import Bar, bar
from structured_ensembles.seeding import derived_seed

Item = TypeVar("Item")


@dataclass(frozen=True)
class Attacked:
    """What an ensemble said about images under one attack.

    Attributes:
        epsilon: The largest change of a pixel, 0 to 1.
        accuracy: Share of answers that are still right, 0 to 1.
        nll: Mean negative log-likelihood of the labels, in nats.
        predictive_entropy: Mean, in nats.
        rejected_share: Of all attacked images, those above the entropy threshold; None without a threshold.
    """

    epsilon: float
    accuracy: float
    nll: float
    predictive_entropy: float
    rejected_share: float | None


@dataclass(frozen=True)
class Transfer:
    """How well an attack on one member deceives the others: FGSM.

    Attributes:
        epsilon: The largest change of a pixel, 0 to 1.
        crafted_on: The members whose gradient was followed, one a row.
        tested_on: The ensemble, then its members, one a column.
        accuracy: By row and column, the share of answers that are still right, 0 to 1.
    """

    epsilon: float
    crafted_on: tuple[str, ...]
    tested_on: tuple[str, ...]
    accuracy: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Adversarial:
    """The adversarial part of an evaluation.

    Attributes:
        images: N, how many were attacked, the wrongly answered ones among them included.
        fgsm: By epsilon.
        pgd: By epsilon.
        transfer: None where one network gives all the answers.
    """

    images: int
    fgsm: tuple[Attacked, ...]
    pgd: tuple[Attacked, ...]
    transfer: Transfer | None


def measured(subject: Subject) -> Adversarial:
    """Of some of the test images."""
    extent = subject.extent
    return adversarial(subject.ensemble, *subject.sample, subject.threshold, epsilons=extent.epsilons, seed=extent.seed)


def adversarial(
    ensemble: Ensemble,
    images: Tensor,
    labels: Tensor,
    threshold: float | None,
    epsilons: Sequence[float] = EPSILONS,
    transfer_epsilon: float = 0.02,
    seed: int = 0,
) -> Adversarial:
    """Attack the whole ensemble at each epsilon, then its members one by one.

    It takes, for each epsilon, as long as 11 forward and backward passes and two forward passes more; the transfer as
    one forward and backward pass of the ensemble and M forward passes.

    Args:
        ensemble: Takes pixels in [0, 1].
        images: (N, C, H, W), uint8, or float32 or float64 in [0, 1].
        labels: (N,), integers.
        threshold: The predictive entropy, in nats, above which the ensemble abstains; None if it has none.
        epsilons: Of FGSM and PGD, 0 to 1 each; 0 measures the images as they are.
        transfer_epsilon: Of the FGSM on single members.
        seed: Of the random start of PGD, the same at every epsilon.

    Raises:
        SettingsError: An epsilon is outside 0 to 1, the threshold is NaN, or the seed is negative.
        DataError: See `attacks.fgsm`.
    """
    _check_settings((*epsilons, transfer_epsilon), threshold, seed)
    pixels, truth = checked(ensemble, images, labels)
    members = _alone(ensemble)
    measured = partial(_attacked, ensemble, truth, threshold)
    craft = partial(pgd, ensemble, pixels, truth, seed=seed)
    with bar("attacking", (1 + STEPS) * len(epsilons) + len(members)) as progress:
        once = [measured(size, fgsm(ensemble, pixels, truth, size)) for size in _paced(epsilons, "FGSM", 1, progress)]
        often = [measured(size, craft(size)) for size in _paced(epsilons, "PGD", STEPS, progress)]
        on_one = [
            _shares_right(ensemble, truth, fgsm(member, pixels, truth, transfer_epsilon))
            for member in _paced(members, "transfer", 1, progress)
        ]
        progress.note("")
    return Adversarial(len(pixels), tuple(once), tuple(often), _transfer(transfer_epsilon, on_one))


def _check_settings(epsilons: Sequence[float], threshold: float | None, seed: int) -> None:
    for epsilon in epsilons:
        check_epsilon(epsilon)
    if threshold is not None and math.isnan(threshold):
        raise SettingsError("threshold nan: pass an entropy in nats, or None if there is none")
    derived_seed(seed)  # its error, before any work


def _alone(ensemble: Ensemble) -> list[Ensemble]:
    """Each member as an ensemble of its own, which shares its tensors; none where one network gives all answers."""
    return [Ensemble([member], ensemble.record) for member in ensemble.members] if len(ensemble.members) > 1 else []


def _paced(items: Sequence[Item], name: str, passes: int, progress: Bar) -> Iterator[Item]:
    """The items, the bar told what is done with them, and afterwards that it took so many passes."""
    for item in items:
        progress.note(name)
        yield item
        progress.advance(passes)


def _attacked(ensemble: Ensemble, labels: Tensor, threshold: float | None, epsilon: float, images: Tensor) -> Attacked:
    answers = ask(ensemble, images, labels)
    said = answers.prediction
    rejection = answers.rejection(threshold)
    return Attacked(
        epsilon=epsilon,
        accuracy=accuracy(said.probabilities, labels),
        nll=nll(said.probabilities, labels),
        predictive_entropy=float(said.predictive_entropy.double().mean()),
        rejected_share=rejection.rejected_share if rejection else None,
    )


def _shares_right(ensemble: Ensemble, labels: Tensor, images: Tensor) -> tuple[float, ...]:
    """Of the ensemble, then of each member: the share of right answers."""
    answers = ask(ensemble, images, labels)
    right = torch.cat([answers.correct[None], answers.prediction.votes.eq(labels)])
    return tuple(right.double().mean(dim=1).tolist())


def _transfer(epsilon: float, rows: Sequence[tuple[float, ...]]) -> Transfer | None:
    if not rows:
        return None
    names = tuple(f"member {number}" for number in range(1, len(rows) + 1))
    return Transfer(epsilon, names, ("ensemble", *names), tuple(rows))
