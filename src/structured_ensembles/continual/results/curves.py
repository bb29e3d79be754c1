"""What several seeds of a strategy came to along a stream: the numbers behind the pictures and the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import TypeAlias

from structured_ensembles.continual.results.records import PARTS, StreamCell, StreamRun, summarise
from structured_ensembles.continual.strategies.joint import Joint
from structured_ensembles.continual.strategies.single_task import SingleTask
from structured_ensembles.continual.strategies.structured import Structured
from structured_ensembles.continual.streams.protocol import StreamResult
from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.statistics import Spread, grouped, spread

Results: TypeAlias = Mapping[str, Sequence[StreamResult]]
"""By strategy, one result for each seed."""

OURS, SEPARATE, JOINT = Structured.name, SingleTask.name, Joint.name
"""The strategy that pictures and page speak of first, and the two that it is measured against."""

Curve: TypeAlias = tuple[Spread, ...]
"""One number after each of the T tasks."""


def by_strategy(runs: Sequence[StreamRun]) -> Results:
    """Of the strategies that have one; one that failed with all seeds is absent."""
    return grouped((run.cell.strategy, run.result) for run in runs if run.result is not None)


def owners(runs: Sequence[StreamRun]) -> Mapping[str, Sequence[int]]:
    """By layer, which task owns each channel, -1 where none does; of the first run that knows it."""
    return next((run.owners for run in runs if run.owners), {})


def proved(runs: Sequence[StreamRun]) -> set[str]:
    """The strategies that were found, with all seeds, to have forgotten nothing, to the bit."""
    return {run.cell.strategy for run in runs} - {run.cell.strategy for run in runs if not run.proved}


def check(results: Results) -> None:
    """Refuse results that cannot stand side by side, before anything is drawn.

    Raises:
        DataError: There is no strategy or no result, a stream is not finished, or the streams differ.
    """
    runs = [run for several in results.values() for run in several]
    empty = [name for name, several in results.items() if not several]
    if not runs or empty:
        raise DataError(f"no result of {', '.join(empty) or 'any strategy'}: pass one at least, or leave it out")
    stream = task_names(runs)
    for run in runs:
        if task_names([run]) != stream:
            raise DataError(
                f"{run.strategy}, seed {run.seed} learned the tasks {_listed([run])}, but {runs[0].strategy}, seed "
                f"{runs[0].seed} learned {_listed(runs)}: pass results of one stream"
            )
        if {len(row) for row in run.accuracies} != {len(stream)}:
            raise DataError(f"{run.strategy}, seed {run.seed} has not learned its stream to the end: finish it first")


def task_names(runs: Sequence[StreamResult]) -> tuple[str, ...]:
    """The names of the T tasks, the same for all of the runs."""
    return tuple(step.task for step in runs[0].steps)


def _listed(runs: Sequence[StreamResult]) -> str:
    return " | ".join(task_names(runs))


def subject(results: Results) -> str:
    """The strategy that comes first in words and pictures."""
    return OURS if OURS in results else next(iter(results))


def short(layer: str) -> str:
    """The name of a layer within the backbone: all have the same beginning."""
    return layer.removeprefix("backbone.")


def accuracy(runs: Sequence[StreamResult]) -> Curve:
    """After each task, the mean accuracy over the tasks so far."""
    return _curve([[fmean(row[: i + 1]) for i, row in enumerate(run.accuracies)] for run in runs])


def memory(runs: Sequence[StreamResult]) -> Curve:
    """After each task, the bytes that answering for the tasks so far needs: images kept to learn from are not in it."""
    return _curve([[step.memory.total - step.memory.data for step in run.steps] for run in runs])


def marginal(runs: Sequence[StreamResult]) -> Curve:
    """By how many bytes, kept images included, each task made the memory grow."""
    return _curve([[step.marginal_bytes for step in run.steps] for run in runs])


def _curve(rows: Sequence[Sequence[float]]) -> Curve:
    return tuple(spread(values) for values in zip(*rows, strict=True))


def parts(runs: Sequence[StreamResult]) -> dict[str, float]:
    """By part of `Memory`, the bytes at the end, mean over the seeds."""
    return {part: fmean(getattr(run.steps[-1].memory, part) for run in runs) for part in PARTS}


def matrix(runs: Sequence[StreamResult]) -> list[list[float | None]]:
    """R, mean over the seeds; None where nothing was measured."""
    same = zip(*(run.accuracies for run in runs), strict=True)
    means = [[fmean(entries) for entries in zip(*rows, strict=True)] for rows in same]
    return [[None if math.isnan(entry) else entry for entry in row] for row in means]


def capacity(runs: Sequence[StreamResult]) -> dict[str, list[float]]:
    """By layer, the share that is left after each task, mean over the seeds; empty where nothing is taken."""
    steps = list(zip(*(run.steps for run in runs), strict=True))
    layers = list(runs[0].steps[-1].capacity or ())
    return {
        layer: [fmean((step.capacity or {}).get(layer, 1.0) for step in same) for same in steps] for layer in layers
    }


def unchanged(runs: Sequence[StreamResult]) -> bool:
    """Whether every accuracy of an earlier task is, after every later one, exactly what it was at first."""
    columns = [[row[j] for row in run.accuracies[j:]] for run in runs for j in range(len(run.steps))]
    return all(a == b for column in columns for a, b in pairwise(column))


def numbers(results: Results) -> dict[str, Mapping[str, Spread]]:
    """By strategy, all numbers of its streams by name, as `records.values` tells them.

    What compares a seed with separate networks or joint training takes those of the same seed; a number that no seed
    has is absent.
    """
    cells = [StreamRun(StreamCell(name, run.seed), result=run) for name, runs in results.items() for run in runs]
    return {one.arm: one.values for one in summarise(cells)}
