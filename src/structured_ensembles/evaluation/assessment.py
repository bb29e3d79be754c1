"""The whole evaluation of an ensemble: its answers computed once, every measurement made from them, failures told.

A measurement that fails leaves a message in its place and the others as they are. What comes out is JSON: its shape is
in docs/evaluation.md.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structured_ensembles.data.sources import ImageData, Unlabelled
from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.blocks.structure import Structure
from structured_ensembles.evaluation.entry import SCHEMA, VERSION, plain
from structured_ensembles.evaluation.subject import Extent, Subject
from structured_ensembles.options.catalogue import BLOCKS
from structured_ensembles.prediction.ensemble import Ensemble


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
    subject = Subject(ensemble, path, images, outside, extent)
    answers = subject.attempt("answers", lambda: subject.answers)
    found = {block: subject.measured(block) for block in BLOCKS}
    record = ensemble.record
    head = {"name": name, "file": path.name, "method": record.method, "members": record.members}
    entry = {**head, "bytes": path.stat().st_size, "failures": subject.failures, **plain(found)}
    return Assessment(entry, answers, found["structure"])


def evaluation(images: ImageData, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``metrics.json`` holds: the data, and the entry of each ensemble."""
    return {
        "schema": SCHEMA,
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
