"""Many streams of many strategies: their records as plain values, tidy tables, and statistics over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from structured_ensembles.continual.learner.memory import Memory
from structured_ensembles.continual.strategies.joint import Joint
from structured_ensembles.continual.strategies.single_task import SingleTask
from structured_ensembles.continual.streams.metrics import model_size_efficiency
from structured_ensembles.continual.streams.protocol import Step, StreamResult
from structured_ensembles.continual.streams.untold import Untold
from structured_ensembles.errors import ArtefactError, DataError
from structured_ensembles.evaluation.statistics import Summary, summary
from structured_ensembles.evaluation.text import csv_table
from structured_ensembles.files.plain import fields_of, is_a, object_of, require

PARTS = tuple(part.name for part in fields(Memory))
"""What bytes are for."""


@dataclass(frozen=True)
class StreamCell:
    """One run of the grid: a strategy, and the seed that everything random in it comes from."""

    strategy: str
    seed: int

    @property
    def kind(self) -> str:
        """Cells of one strategy take about as long."""
        return self.strategy

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.strategy}-seed{self.seed}"


@dataclass(frozen=True)
class StreamRun:
    """What came of a cell.

    Attributes:
        cell: Which one.
        error: Why it failed, in the words of the error; None if it finished.
        result: What was measured; None if it failed.
        owners: By layer, which task owns each channel, -1 for none; None where channels have no owners.
        notices: What a user should know of it, one sentence each.
        proved: Whether all that earlier tasks depend on was found at the end to be, to the bit, what it was when they
            were learned; False where it was not compared.
        untold: How well it answers without being told the task; None where it cannot.
    """

    cell: StreamCell
    error: str | None = None
    result: StreamResult | None = None
    owners: Mapping[str, Sequence[int]] | None = None
    notices: tuple[str, ...] = ()
    proved: bool = False
    untold: Untold | None = None

    @property
    def seconds(self) -> float | None:
        """How long learning took; None if it failed, or went on from an earlier stop."""
        return None if self.result is None or math.isnan(self.result.seconds) else self.result.seconds


def to_json(run: StreamRun) -> dict[str, object]:
    """The run as plain values, unrounded, with None for what was not measured; `from_json` reads them."""
    steps = None if run.result is None else [_plain(step) for step in run.result.steps]
    owners = None if run.owners is None else {name: list(owner) for name, owner in run.owners.items()}
    untold = None if run.untold is None else asdict(run.untold)
    told = {"owners": owners, "notices": list(run.notices), "proved": run.proved, "untold": untold}
    return {"cell": asdict(run.cell), "error": run.error, "steps": steps, **told}


def _plain(step: Step) -> dict[str, object]:
    accuracies = [_or_none(value) for value in step.accuracies]
    return {**asdict(step), "seconds": _or_none(step.seconds), "accuracies": accuracies}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def from_json(value: object) -> StreamRun:
    """The run that `to_json` wrote.

    Raises:
        ArtefactError: Something is missing, unknown or of another type.
    """
    run = object_of("a run", value, ("cell", "error", "steps", "owners", "notices", "proved", "untold"))
    cell = StreamCell(**fields_of("a run's cell", run["cell"], StreamCell))
    require(is_a(cell.strategy, str) and is_a(cell.seed, int), f"{cell} is no cell.")
    error, steps, owners = run["error"], run["steps"], run["owners"]
    require(is_a(error, str | None), f"a run's error must be text or null, not {error!r}.")
    require((steps is None) is (error is not None), "a run must have either an error or steps.")
    require(is_a(run["proved"], bool), f"a run's proved must be true or false, not {run['proved']!r}.")
    require(is_a(run["notices"], list[str]), "a run's notices must be a list of texts.")
    require(is_a(owners, dict[str, list[int]] | None), "a run's owners must be lists of integers by layer.")
    result = None if steps is None else StreamResult(cell.strategy, cell.seed, _steps(steps))
    return StreamRun(cell, error, result, owners, tuple(run["notices"]), run["proved"], _untold(run["untold"]))


def _untold(value: object) -> Untold | None:
    if value is None:
        return None
    found = fields_of("a run's untold", value, Untold)
    require(is_a(found["nbytes"], int), f"untold.nbytes must be an integer, not {found['nbytes']!r}.")
    require(is_a(found, dict[str, float]), f"a run's untold must be numbers, not {found}.")
    return Untold(**found)


def _steps(value: object) -> tuple[Step, ...]:
    if not isinstance(value, list) or not value:
        raise ArtefactError(f"a run's steps must be a list that is not empty, not {value!r}.")
    return tuple(_step(step, len(value)) for step in value)


def _step(value: object, count: int) -> Step:
    step = fields_of("a step", value, Step)
    memory = fields_of("a step's memory", step["memory"], Memory)
    accuracies, capacity = step["accuracies"], step["capacity"]
    require(is_a(step["task"], str), f"a step's task must be text, not {step['task']!r}.")
    right = is_a(accuracies, list[float | None]) and len(accuracies) == count
    require(right, f"a step's accuracies must be {count} numbers.")
    require(is_a(step["seconds"], float | None), f"a step's seconds must be a number, not {step['seconds']!r}.")
    sizes = [step["marginal_bytes"], *memory.values()]
    require(is_a(sizes, list[int]), f"bytes must be integers, not {sizes}.")
    require(is_a(capacity, dict[str, float] | None), "a step's capacity must be null, or numbers by layer.")
    return Step(
        task=step["task"],
        seconds=_or_nan(step["seconds"]),
        accuracies=tuple(_or_nan(number) for number in accuracies),
        memory=Memory(**memory),
        marginal_bytes=step["marginal_bytes"],
        capacity=capacity,
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def values(run: StreamRun, runs: Sequence[StreamRun]) -> dict[str, float]:
    """What a finished run came to, by name; what it lacks a reference for is left out.

    Those are the fields of `streams.metrics.StreamMetrics`; bytes, at the end, in all and for each part of `Memory`;
    ratio, of bytes to those of single-task networks with the same seed; model_size_efficiency; seconds; and those of
    `streams.untold.Untold`, with untold_ before them.

    Args:
        run: Which one.
        runs: All of the grid: those of `SingleTask` and `Joint` with the same seed are what it is set against.
    """
    if run.result is None:
        return {}
    single, joint = (_reference(kind.name, run.cell.seed, runs) for kind in (SingleTask, Joint))
    memory = run.result.steps[-1].memory
    found = {
        **asdict(run.result.metrics(single, joint)),
        "bytes": memory.total,
        **{f"bytes_{part}": size for part, size in asdict(memory).items()},
        "ratio": memory.total / single.steps[-1].memory.total if single else math.nan,
        "model_size_efficiency": model_size_efficiency([step.memory.total for step in run.result.steps]),
        "seconds": run.result.seconds,
        **({f"untold_{name}": value for name, value in asdict(run.untold).items()} if run.untold else {}),
    }
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _reference(strategy: str, seed: int, runs: Sequence[StreamRun]) -> StreamResult | None:
    return next((run.result for run in runs if run.cell == StreamCell(strategy, seed)), None)


def summarise(runs: Sequence[StreamRun]) -> list[Summary[str]]:
    """Every strategy over its seeds, in the order in which they first come.

    Raises:
        DataError: A cell occurs twice.
    """
    if len({run.cell for run in runs}) < len(runs):
        raise DataError("a strategy and seed occur twice: pass every run once")
    strategies = dict.fromkeys(run.cell.strategy for run in runs)
    found = {run.cell: values(run, runs) if run.error is None else None for run in runs}
    return [summary(name, [found[cell] for cell in found if cell.strategy == name]) for name in strategies]


def runs_csv(runs: Sequence[StreamRun]) -> str:
    """A table with a row for each run: strategy, seed, all `values`, and error, empty for a run that finished."""
    rows = [(run, values(run, runs)) for run in runs]
    names = dict.fromkeys(name for _, found in rows for name in found)
    return csv_table(
        ["strategy", "seed", *names, "error"],
        [{**asdict(run.cell), **found, "error": run.error} for run, found in rows],
    )


def accuracies_csv(runs: Sequence[StreamRun]) -> str:
    """A table with a row for each measurement.

    Columns: strategy, seed; learned, how many tasks had been learned; task, which one was measured, from 1 on, and its
    name; accuracy. What was not measured has no row.
    """
    return csv_table(
        ["strategy", "seed", "learned", "task", "name", "accuracy"],
        [
            {**asdict(run.cell), "learned": i, "task": j, "name": result.steps[j - 1].task, "accuracy": accuracy}
            for run, result in _finished(runs)
            for i, step in enumerate(result.steps, 1)
            for j, accuracy in enumerate(step.accuracies, 1)
            if not math.isnan(accuracy)
        ],
    )


def steps_csv(runs: Sequence[StreamRun]) -> str:
    """A table with a row for each task that was learned.

    Columns: strategy, seed; learned, how many tasks had been learned with it; name, of the task; seconds, of learning
    it; bytes, for all tasks so far, those of each part of `Memory`, and marginal_bytes; capacity, the mean over layers
    of the share that is left, empty where nothing is taken.
    """
    parts = [f"bytes_{part}" for part in PARTS]
    return csv_table(
        ["strategy", "seed", "learned", "name", "seconds", "bytes", *parts, "marginal_bytes", "capacity"],
        [
            {**asdict(run.cell), "learned": i, **_step_row(step)}
            for run, result in _finished(runs)
            for i, step in enumerate(result.steps, 1)
        ],
    )


def _step_row(step: Step) -> dict[str, Any]:
    return {
        "name": step.task,
        "seconds": _or_none(step.seconds),
        "bytes": step.memory.total,
        **{f"bytes_{part}": size for part, size in asdict(step.memory).items()},
        "marginal_bytes": step.marginal_bytes,
        "capacity": sum(step.capacity.values()) / len(step.capacity) if step.capacity else None,
    }


def _finished(runs: Sequence[StreamRun]) -> list[tuple[StreamRun, StreamResult]]:
    return [(run, run.result) for run in runs if run.result is not None]
