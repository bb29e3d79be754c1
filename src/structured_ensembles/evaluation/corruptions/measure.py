"""How an ensemble bears corrupted images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import torch
from torch import Tensor

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.answers import Answers, ask
from structured_ensembles.evaluation.corruptions import files
from structured_ensembles.evaluation.corruptions.kinds import KINDS, NAME, SEVERITIES, STANDARD, check_choices, corrupt
from structured_ensembles.evaluation.entry import plain
from structured_ensembles.evaluation.metrics import check_bins, quality
from structured_ensembles.evaluation.subject import Subject
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.progress import bar


@dataclass(frozen=True)
class Robustness:
    """How good an ensemble is on some corrupted images.

    Attributes:
        accuracy: Share of right answers.
        nll: Mean negative log-likelihood of the labels, in nats.
        ece: Expected calibration error.
        rejected_share: Share of images whose predictive entropy is above the threshold; None without a threshold.
        accuracy_of_kept: Share of right answers among the others; None without a threshold or if there are none.
    """

    accuracy: float
    nll: float
    ece: float
    rejected_share: float | None
    accuracy_of_kept: float | None


@dataclass(frozen=True)
class SeverityRobustness(Robustness):
    """Means over the standard kinds, at one severity.

    Attributes:
        severity: 1 to 5.
    """

    severity: int


@dataclass(frozen=True)
class KindRobustness(Robustness):
    """Means over the severities, of one kind.

    Attributes:
        kind: Its name.
    """

    kind: str


@dataclass(frozen=True)
class Corruptions:
    """How an ensemble bears common corruptions.

    A mean of ``accuracy_of_kept`` is over the sets of which anything was kept; None if there is no such set.

    Attributes:
        name: What the images are: ``"CIFAR-10-C-like"``, or the folder of the published files.
        by_severity: Means over those of the 15 standard kinds that were measured; empty if there are none.
        by_kind: Means over the severities, of all kinds that were measured.
    """

    name: str
    by_severity: tuple[SeverityRobustness, ...]
    by_kind: tuple[KindRobustness, ...]


_Cells: TypeAlias = Mapping[tuple[str, int], Robustness]  # by kind and severity


def measured(subject: Subject) -> Corruptions:
    """Of some of the test images, or of the published files; a kind that cannot be read stops no other."""
    ensemble, threshold, extent = subject.ensemble, subject.threshold, subject.extent
    if extent.corrupted is None:
        return corruptions(ensemble, *subject.sample, threshold, bins=extent.bins, seed=extent.seed)
    found, missing = corruptions_of_files(ensemble, extent.corrupted, threshold, bins=extent.bins, limit=extent.sample)
    subject.failures.update({f"corruptions: {kind}": message for kind, message in missing.items()})
    return found


def corruptions(
    ensemble: Ensemble,
    images: Tensor,
    labels: Tensor,
    threshold: float | None,
    kinds: Sequence[str] = KINDS,
    severities: Sequence[int] = SEVERITIES,
    bins: int = 15,
    seed: int = 0,
) -> Corruptions:
    """Corrupt images, and measure the answers.

    Args:
        ensemble: Takes pixels in [0, 1].
        images: (N, C, H, W), uint8, or float in [0, 1], of 1 or 3 channels and 8x8 pixels or more.
        labels: (N,), what they show.
        threshold: The predictive entropy, in nats, above which an answer is rejected; None rejects nothing.
        kinds: Some of `KINDS`; by severity, only the `STANDARD` ones count.
        severities: Some of 1 to 5.
        bins: Of the calibration error.
        seed: Of the corruptions: the same one changes the same images in the same way, whatever the ensemble.

    Raises:
        SettingsError: A kind, a severity, the number of bins, the threshold or the seed does not exist.
        DataError: The images cannot be corrupted, do not fit the ensemble or the labels, or an answer is NaN.
    """
    check_choices(kinds, severities, seed)
    _check_measuring(bins, threshold)
    _check_fit(ensemble, "the images", tuple(images.shape[1:]))
    pixels = _bytes(images).cpu().numpy()

    def score(kind: str, severity: int) -> Robustness:
        corrupted = torch.from_numpy(corrupt(pixels, kind, severity, seed))
        return _scores(ask(ensemble, corrupted, labels), labels, threshold, bins)

    return _summary(NAME, _cells(score, kinds, severities))


def corruptions_of_files(
    ensemble: Ensemble,
    folder: str | Path,
    threshold: float | None,
    kinds: Sequence[str] = KINDS,
    severities: Sequence[int] = SEVERITIES,
    bins: int = 15,
    limit: int | None = None,
) -> tuple[Corruptions, dict[str, str]]:
    """Measure the answers to the published files, CIFAR-10-C or CIFAR-100-C.

    Args:
        ensemble: Takes pixels in [0, 1], 3 channels.
        folder: Where ``<kind>.npy`` and ``labels.npy`` are.
        threshold: The predictive entropy, in nats, above which an answer is rejected; None rejects nothing.
        kinds: Some of `KINDS`; by severity, only the `STANDARD` ones count.
        severities: Some of 1 to 5.
        bins: Of the calibration error.
        limit: Only so many images, the first ones, of each kind and severity.

    Returns:
        The measurements, and by kind why it could not be read: such a kind is left out of every mean.

    Raises:
        SettingsError: A kind, a severity, the number of bins, the threshold or the limit does not exist.
        DataError: There are no labels, none of the kinds can be read, or an answer is NaN.
    """
    check_choices(kinds, severities)
    _check_measuring(bins, threshold)
    if limit is not None and limit < 1:
        raise SettingsError(f"limit {limit}: pass 1 image or more, or None for all")
    sets, failures = _readable(ensemble, Path(folder), kinds)

    def score(kind: str, severity: int) -> Robustness:
        images, classes = (stored[severity - 1, :limit] for stored in sets[kind])
        labels = torch.from_numpy(classes)
        return _scores(ask(ensemble, files.as_tensor(images), labels), labels, threshold, bins)

    return _summary(Path(folder).resolve().name, _cells(score, tuple(sets), severities)), failures


def _readable(
    ensemble: Ensemble, folder: Path, kinds: Sequence[str]
) -> tuple[dict[str, tuple[files.Array, files.Array]], dict[str, str]]:
    """By kind, the images and labels of the files that are sound, and what is wrong with the others."""
    labels = files.read_labels(folder)
    found = {kind: _read(ensemble, folder, kind, labels.shape) for kind in kinds}
    sets = {kind: (images, labels) for kind, images in found.items() if not isinstance(images, DataError)}
    failures = {kind: str(error) for kind, error in found.items() if isinstance(error, DataError)}
    if not sets:
        raise DataError(f"{folder} has no corrupted images that can be read: {next(iter(failures.values()))}")
    return sets, failures


def _read(ensemble: Ensemble, folder: Path, kind: str, labels: tuple[int, ...]) -> files.Array | DataError:
    try:
        images = files.read_images(folder, kind, labels)
        _check_fit(ensemble, str(folder / f"{kind}.npy"), (3, *images.shape[2:4]))
    except DataError as error:
        return error
    return images


def _cells(score: Callable[[str, int], Robustness], kinds: Sequence[str], severities: Sequence[int]) -> _Cells:
    cells = {}
    with bar("corruptions", len(kinds) * len(severities)) as shown:
        for kind, severity in product(kinds, severities):
            shown.note(kind)
            cells[kind, severity] = score(kind, severity)
            shown.advance()
        shown.note("")
    return cells


def _scores(answers: Answers, labels: Tensor, threshold: float | None, bins: int) -> Robustness:
    found = quality(answers.prediction.probabilities, labels, bins)
    rejection = answers.rejection(threshold)
    return Robustness(
        accuracy=found.accuracy,
        nll=found.nll,
        ece=found.ece,
        rejected_share=rejection.rejected_share if rejection else None,
        accuracy_of_kept=plain(rejection.accuracy_of_kept) if rejection else None,
    )


def _summary(name: str, cells: _Cells) -> Corruptions:
    standard = {cell: scores for cell, scores in cells.items() if cell[0] in STANDARD}
    severities = sorted({severity for _, severity in standard})
    kinds = dict.fromkeys(kind for kind, _ in cells)
    return Corruptions(
        name,
        tuple(
            SeverityRobustness(**_mean(s for (_, at), s in standard.items() if at == level), severity=level)
            for level in severities
        ),
        tuple(KindRobustness(**_mean(s for (of, _), s in cells.items() if of == kind), kind=kind) for kind in kinds),
    )


def _mean(several: Iterable[Robustness]) -> dict[str, Any]:
    """Field by field, the mean of what is not None."""
    rows = [asdict(scores) for scores in several]
    columns = {name: [row[name] for row in rows if row[name] is not None] for name in rows[0]}
    return {name: fmean(column) if column else None for name, column in columns.items()}


def _bytes(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point() or not ((images >= 0) & (images <= 1)).all():
        raise DataError("images cannot be corrupted: pass pixels as uint8, or as floats from 0 to 1, not normalised")
    return (images * 255).round().to(torch.uint8)


def _check_measuring(bins: int, threshold: float | None) -> None:
    check_bins(bins)
    if threshold is not None and math.isnan(threshold):
        raise SettingsError("threshold nan: pass an entropy in nats, or None to reject nothing")


def _check_fit(ensemble: Ensemble, what: str, shape: tuple[int, ...]) -> None:
    wanted = tuple(ensemble.record.input_shape)
    if shape != wanted:
        raise DataError(f"{what}: images of {shape} (channels, height, width), but the ensemble takes {wanted}")
