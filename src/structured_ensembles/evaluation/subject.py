"""What is measured: one ensemble on some images, and how far to go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from structured_ensembles.data.sources import ImageData, Unlabelled
from structured_ensembles.errors import SettingsError, StructensError
from structured_ensembles.evaluation.answers import Answers, ask_about, evenly
from structured_ensembles.evaluation.attacks import EPSILONS, check_epsilon
from structured_ensembles.evaluation.metrics import check_bins
from structured_ensembles.options.catalogue import BLOCKS
from structured_ensembles.prediction.ensemble import Ensemble

Found = TypeVar("Found")


class Unanswered(Exception):  # noqa: N818 (nothing goes wrong where it is raised)
    """The ensemble could not answer the test images: why is told once, not for every measurement that needs them."""


@dataclass(frozen=True)
class Extent:
    """How far an evaluation goes.

    Attributes:
        bins: Of the calibration errors.
        sample: Attacks, corruptions and the built-in unfamiliar images take so many test images, at most.
        epsilons: How far attacks may move a pixel of [0, 1].
        corrupted: A folder with the files of CIFAR-10-C or CIFAR-100-C, which then replace our own corruptions.
        seed: Of attacks, corruptions and the built-in unfamiliar images.
        skipped: Those of `BLOCKS` that are not measured.

    Raises:
        SettingsError: A number is outside its limits, or no block has this name.
    """

    bins: int = 15
    sample: int = 1000
    epsilons: Sequence[float] = EPSILONS
    corrupted: Path | None = None
    seed: int = 0
    skipped: Collection[str] = ()

    def __post_init__(self) -> None:
        check_bins(self.bins)
        for epsilon in self.epsilons:
            check_epsilon(epsilon)
        if not self.sample >= 1:
            raise SettingsError(f"sample {self.sample}: attack and corrupt 1 image or more")
        for block in self.skipped:
            BLOCKS.check(block)


@dataclass(frozen=True, eq=False)
class Subject:
    """One ensemble, and what its measurements need.

    Attributes:
        ensemble: What the file holds.
        path: Of its file.
        images: Of its classes; the test images are measured on.
        outside: Images that it was not made for, beside the built-in ones.
        extent: How far to go.
        failures: By what was tried, why there is nothing to show.
    """

    ensemble: Ensemble
    path: Path
    images: ImageData
    outside: Sequence[Unlabelled]
    extent: Extent
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> Mapping[str, Any]:
        """What fitting left in its file."""
        return self.ensemble.record.summary

    @property
    def threshold(self) -> float | None:
        """The predictive entropy, in nats, above which it abstains; None if it has none."""
        return self.summary.get("rejection_threshold")

    @property
    def answers(self) -> Answers:
        """What it said about the test images: computed once, for all measurements.

        Raises:
            Unanswered: It could not answer.
        """
        if self._answers is None:
            raise Unanswered
        return self._answers

    @cached_property
    def _answers(self) -> Answers | None:
        return self.attempt("answers", lambda: ask_about(self.ensemble, self.images.measured, "Answering"))

    @property
    def sample(self) -> tuple[Tensor, Tensor]:
        """Some of the test images and what they show, for what takes long."""
        chosen = evenly(len(self.images.test), self.extent.sample)
        return self.images.test.images[chosen], self.images.test.labels[chosen]

    def measured(self, block: str) -> Any:  # noqa: ANN401 (a dataclass, or whatever else JSON can hold)
        """What one of `BLOCKS` finds; None where it is skipped or fails."""
        return None if block in self.extent.skipped else self.attempt(block, lambda: BLOCKS[block](self))

    def attempt(self, name: str, measure: Callable[[], Found]) -> Found | None:
        """What a measurement gives; None if it fails, and why among the failures."""
        try:
            return measure()
        except Unanswered:
            return None
        except StructensError as error:
            self.failures[name] = str(error)
        except Exception as error:  # noqa: BLE001 (one measurement must not cost the others)
            self.failures[name] = f"{type(error).__name__}: {error}"
        return None
