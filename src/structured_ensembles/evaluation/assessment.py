"""The whole evaluation of an ensemble: its answers computed once, every measurement made from them, failures told.

A measurement that fails leaves a message in its place and the others as they are. What comes out is JSON: its shape is
in docs/evaluation.md.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from structured_ensembles.data.sources import Unlabelled
from structured_ensembles.errors import SettingsError, StructensError, unknown
from structured_ensembles.evaluation.answers import Answers, ask
from structured_ensembles.evaluation.blocks import synthetic
from structured_ensembles.evaluation.blocks.adversarial import EPSILONS, adversarial
from structured_ensembles.evaluation.blocks.attacks import check_epsilon
from structured_ensembles.evaluation.blocks.calibration import calibration
from structured_ensembles.evaluation.blocks.entropies import entropies
from structured_ensembles.evaluation.blocks.footprint import cost_in_use
from structured_ensembles.evaluation.blocks.ood import out_of_distribution
from structured_ensembles.evaluation.blocks.selective import selective
from structured_ensembles.evaluation.blocks.structure import Structure, structure
from structured_ensembles.evaluation.corruptions import corruptions, corruptions_of_files
from structured_ensembles.evaluation.entry import plain
from structured_ensembles.evaluation.metrics import check_bins

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from structured_ensembles.data.sources import ImageData
    from structured_ensembles.prediction.ensemble import Ensemble

NAME, VERSION = "structens-evaluation", 1
BLOCKS = (
    *("calibration", "uncertainty", "selective", "out_of_distribution", "adversarial", "corruptions"),
    *("cost", "structure"),
)
"""What is measured, in this order."""


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
            if block not in BLOCKS:
                raise unknown("measurement", block, BLOCKS)


@dataclass(frozen=True, eq=False)
class Assessment:
    """The evaluation of one ensemble.

    Attributes:
        entry: Its part of ``metrics.json``.
        answers: What it said about the test images; None if it could not.
        structure: How its members differ; None likewise.
    """

    entry: dict[str, Any]
    answers: Answers | None
    structure: Structure | None


def assess(
    ensemble: Ensemble, path: Path, images: ImageData, outside: Sequence[Unlabelled], extent: Extent, name: str
) -> Assessment:
    """Measure everything about one ensemble.

    Args:
        ensemble: What the file holds.
        path: Of its file.
        images: Of its classes; the test images are measured on.
        outside: Images that it was not made for, beside the built-in ones.
        extent: How far to go.
        name: What a reader calls it.
    """
    failures: dict[str, str] = {}
    said = _attempt("answers", lambda: ask(ensemble, images.test.images, images.test.labels, "Answering"), failures)
    answers = said if isinstance(said, Answers) else None
    blocks = _blocks(ensemble, path, images, answers, extent, failures)
    entry = {block: _attempt(block, blocks[block], failures) if block in blocks else None for block in BLOCKS}
    if answers is not None and "out_of_distribution" not in extent.skipped:
        unfamiliar = (*_built_in(images, extent), *outside)
        entry["out_of_distribution"] = _unfamiliar(ensemble, answers, unfamiliar, failures) or None
    record = ensemble.record
    head = {"name": name, "file": path.name, "method": record.method, "members": record.members}
    return Assessment(
        {**head, "bytes": path.stat().st_size, "failures": failures, **plain(entry)}, answers, entry["structure"]
    )


def evaluation(images: ImageData, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``metrics.json`` holds: the data, and the entry of each ensemble."""
    return {
        "schema": NAME,
        "version": VERSION,
        "library": importlib.metadata.version("structured-ensembles"),
        "data": {
            "name": images.name,
            "test_images": len(images.test),
            "classes": list(images.classes),
            "input_shape": list(images.input_shape),
        },
        "predictors": list(entries),
    }


def spread(count: int, sample: int) -> Tensor:
    """Indices of at most ``sample`` of so many things, evenly spaced: int64."""
    return torch.linspace(0, count - 1, min(count, sample), dtype=torch.float64).round().long()


def _blocks(
    ensemble: Ensemble,
    path: Path,
    images: ImageData,
    answers: Answers | None,
    extent: Extent,
    failures: dict[str, str],
) -> dict[str, Callable[[], Any]]:
    """By name, how each measurement is made that can be."""
    summary: Mapping[str, Any] = ensemble.record.summary
    threshold = summary.get("rejection_threshold")
    chosen = spread(len(images.test), extent.sample)
    some, labels = images.test.images[chosen], images.test.labels[chosen]
    blocks: dict[str, Callable[[], Any]] = {
        "adversarial": partial(
            adversarial, ensemble, some, labels, threshold, epsilons=extent.epsilons, seed=extent.seed
        ),
        "corruptions": partial(_corrupted, ensemble, some, labels, extent, failures),
        "cost": partial(cost_in_use, path, note=lambda text: failures.setdefault("cost: peak memory", str(text))),
    }
    if answers is not None:
        blocks |= {
            "calibration": partial(calibration, answers, extent.bins, summary.get("temperature")),
            "uncertainty": partial(entropies, answers),
            "selective": partial(
                selective,
                answers,
                threshold,
                summary.get("rejection_gamma"),
                summary.get("correct_entropy_quartiles"),
            ),
            "structure": partial(structure, ensemble, answers.prediction.votes),
        }
    return {name: measure for name, measure in blocks.items() if name not in extent.skipped}


def _corrupted(ensemble: Ensemble, images: Tensor, labels: Tensor, extent: Extent, failures: dict[str, str]) -> object:
    threshold: Any = ensemble.record.summary.get("rejection_threshold")
    if extent.corrupted is None:
        return corruptions(ensemble, images, labels, threshold, bins=extent.bins, seed=extent.seed)
    found, missing = corruptions_of_files(ensemble, extent.corrupted, threshold, bins=extent.bins, limit=extent.sample)
    failures.update({f"corruptions: {kind}": message for kind, message in missing.items()})
    return found


def _built_in(images: ImageData, extent: Extent) -> list[Unlabelled]:
    some = images.test.images[spread(len(images.test), extent.sample)]
    return [Unlabelled(name, make(some, extent.seed), ()) for name, make in synthetic.SETS.items()]


def _unfamiliar(ensemble: Ensemble, inside: Answers, sets: Sequence[Unlabelled], failures: dict[str, str]) -> list[Any]:
    """The measurement of each set of unfamiliar images that could be made."""

    def one(outside: Unlabelled) -> Any:  # noqa: ANN401 (or None)
        answers = ask(ensemble, outside.images, what=f"Answering {outside.name}")
        return out_of_distribution(inside, answers, outside.name)

    found = [_attempt(f"out_of_distribution: {outside.name}", partial(one, outside), failures) for outside in sets]
    return [part for part in found if part is not None]


def _attempt(name: str, measure: Callable[[], Any], failures: dict[str, str]) -> Any:  # noqa: ANN401 (any measurement)
    """What the measurement gives; None if it fails, and why among the failures."""
    try:
        return measure()
    except StructensError as error:
        failures[name] = str(error)
    except Exception as error:  # noqa: BLE001 (one measurement must not cost the others)
        failures[name] = f"{type(error).__name__}: {error}"
    return None
