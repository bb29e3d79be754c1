"""`structens evaluate --all`: everything that can be measured about artefacts, for programs and for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from structured_ensembles.cli.folder import filled
from structured_ensembles.cli.printing import data_json, head, line, note, say
from structured_ensembles.data.sources import load_unlabelled
from structured_ensembles.errors import StructensError
from structured_ensembles.evaluation import report
from structured_ensembles.evaluation.assessment import assess, evaluation
from structured_ensembles.evaluation.attacks import EPSILONS
from structured_ensembles.evaluation.corruptions.files import read_labels
from structured_ensembles.evaluation.pictures.structure import widths_picture
from structured_ensembles.evaluation.subject import Extent
from structured_ensembles.files.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from structured_ensembles.data.sources import ImageData, Unlabelled
    from structured_ensembles.evaluation.assessment import Assessment
    from structured_ensembles.prediction.ensemble import Ensemble

_METRICS, _REPORT, _WIDTHS = "metrics.json", "report.html", "widths.png"


def evaluate(  # noqa: PLR0913 (one for each option)
    ensembles: Mapping[Path, Ensemble],
    images: ImageData,
    *,
    ood: Sequence[str],
    bins: int,
    sample: int,
    epsilon: Sequence[float],
    cifar_c: Path | None,
    seed: int,
    skip: Sequence[str],
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure everything about artefacts, of which the first is ours, and write it into a new folder.

    Raises:
        SettingsError: The folder exists or cannot be made, or an option is outside its limits.
        DataError: There are no labels where CIFAR-10-C should be.
    """
    if cifar_c is not None:
        read_labels(cifar_c)
    extent = Extent(bins, sample, tuple(epsilon) or EPSILONS, cifar_c, seed, skip)
    ours = next(iter(ensembles))
    folder = out or ours.with_name(f"{ours.stem}-evaluation")
    with filled(folder):
        outside, unreadable = _outside(ood, images)
        found = [
            assess(ensemble, path, images, outside, extent, name)
            for (path, ensemble), name in zip(ensembles.items(), _names(list(ensembles)), strict=True)
        ]
        entries = [{**one.entry, "failures": {**unreadable, **one.entry["failures"]}} for one in found]
        whole = evaluation(images, entries)
        _write(whole, images, found[0], folder)
    if as_json:
        data_json(whole)
    else:
        _tell(entries, folder)


def _write(whole: Mapping[str, Any], images: ImageData, ours: Assessment, folder: Path) -> None:
    write_whole(folder / _METRICS, json.dumps(whole, indent=2, allow_nan=False) + "\n")
    shown = report.gallery(images.test.images, ours.answers) if ours.answers else report.NOTHING
    report.write(folder / _REPORT, whole, shown)
    if ours.structure is not None and ours.structure.layers:
        widths_picture(ours.structure, folder / _WIDTHS)


def _tell(entries: Sequence[Mapping[str, Any]], folder: Path) -> None:
    for entry in entries:
        head(entry["name"])
        for sentence in report.summary(entry):
            say(sentence)
        note([f"not measured: {block}: {message}" for block, message in entry["failures"].items()])
    head(f"In {folder}")
    line(f"  {_REPORT:<24}all figures and pictures, for a browser")
    if (folder / _WIDTHS).exists():
        line(f"  {_WIDTHS:<24}how many channels each member keeps")
    line(f"  {_METRICS:<24}the same numbers, for programs")


def _outside(sources: Sequence[str], images: ImageData) -> tuple[list[Unlabelled], dict[str, str]]:
    """The unfamiliar images that can be read, and by name why others cannot: those do not stop the rest."""
    read = {source: _readable(source, images) for source in sources}
    failures = {f"out_of_distribution: {source}": one for source, one in read.items() if isinstance(one, str)}
    found = [one for one in read.values() if not isinstance(one, str)]
    note([f"{one.name}: {notice}" for one in found for notice in one.notices])
    note([f"--ood {source} is left out: {one}" for source, one in read.items() if isinstance(one, str)])
    return found, failures


def _readable(source: str, images: ImageData) -> Unlabelled | str:
    try:
        return load_unlabelled(source, images.input_shape, limit=len(images.test))
    except StructensError as error:
        return str(error)


def _names(paths: Sequence[Path]) -> list[str]:
    """What a reader calls the artefacts: the names of their files, with their folders where those are equal."""
    stems = [path.stem for path in paths]
    return [stem if stems.count(stem) == 1 else str(path) for stem, path in zip(stems, paths, strict=True)]
