"""The grid of streams: every strategy and seed, each cell a stream of its own, learned and measured from end to end.

All cells of a seed see the same tasks, held-out images, backbone, epochs and schedule; only the strategy differs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from structured_ensembles.continual.learner import tasks
from structured_ensembles.continual.learner.backbones import backbone
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.results.records import (
    StreamCell,
    StreamRun,
    accuracies_csv,
    from_json,
    runs_csv,
    steps_csv,
    to_json,
)
from structured_ensembles.continual.results.tables import markdown
from structured_ensembles.continual.strategies.structured import Structured
from structured_ensembles.continual.streams import protocol, untold
from structured_ensembles.data import sources as datasets
from structured_ensembles.data.sources import ImageData
from structured_ensembles.errors import DataError
from structured_ensembles.experiments.grids import Work, attempted
from structured_ensembles.files.whole import write_whole
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.networks.modules import draw
from structured_ensembles.options.catalogue import STRATEGIES
from structured_ensembles.options.choices import Log, StreamKind
from structured_ensembles.options.plans import StreamGrid, StreamPlan


def work(grid: StreamGrid) -> Work[StreamCell, StreamRun]:
    """Everything that the grid asks for."""
    return Work(
        cells(grid), partial(load, grid.plan), partial(learn_cell, grid), to_json, from_json, "learning streams"
    )


Sources = Sequence["ImageData"]
"""What tasks are made of: one set of images, or one for each task."""


def load(plan: StreamPlan) -> list[ImageData]:
    """Read all data of a plan.

    Raises:
        DataError: As `sources.load`.
        SettingsError: As `sources.load`.
    """
    return [datasets.load(source, image_size=plan.image_size) for source in plan.sources or (plan.data,)]


def stream(plan: StreamPlan, sources: Sources, seed: int) -> list[Task]:
    """The tasks of a seed.

    Raises:
        DataError: The images cannot be learned from, or those of several sources do not fit together.
        SettingsError: They do not make so many tasks.
    """
    held_out = plan.settings.held_out
    if plan.sources:
        return tasks.from_sources(sources, held_out=held_out, seed=seed)
    make = {
        StreamKind.SPLIT: tasks.split_classes,
        StreamKind.PERMUTED: tasks.permuted,
        StreamKind.ROTATED: tasks.rotated,
    }[plan.kind]
    return make(sources[0], plan.tasks, held_out=held_out, seed=seed)


def network(plan: StreamPlan, first: Task) -> NetworkSpec:
    """The backbone's network, which takes pixels in [0, 1] and normalises them by the images of the first task.

    Those of later tasks are not known when it is made.

    Raises:
        StructensError: It cannot be built for these images, or has no output layer to leave out.
    """
    mean, std = datasets.mean_and_std(first.train)
    spec = NetworkSpec(plan.architecture, first.input_shape, len(first.classes), plan.arguments, mean, std)
    draw(lambda: backbone(spec), 0)
    return spec


def cells(grid: StreamGrid) -> list[StreamCell]:
    """Every run of the grid, seed by seed, so that a part of the grid already compares."""
    return [StreamCell(name, seed) for seed in grid.seeds for name in grid.strategies]


def learn_cell(grid: StreamGrid, cell: StreamCell, sources: Sources, state: Path | None = None) -> StreamRun:
    """Learn and measure the stream of one cell; what goes wrong is its result, and stops nobody else.

    Args:
        grid: Of which it is one.
        cell: Which one.
        sources: Its data, loaded.
        state: Where to keep the trainings that a stopped cell goes on from.
    """
    return attempted(lambda: _learned(grid.plan, cell, sources, state), lambda why: StreamRun(cell, why))


def _learned(plan: StreamPlan, cell: StreamCell, sources: Sources, state: Path | None) -> StreamRun:
    shown = stream(plan, sources, cell.seed)
    quiet = replace(plan.settings.training, log=Log.NONE)  # logs would go with the state
    chosen = replace(plan.settings, training=quiet, tasks=len(shown))
    learner = STRATEGIES[cell.strategy](partial(backbone, network(plan, shown[0])), chosen, cell.seed)
    import_module("structured_ensembles.training._lightning")  # which takes seconds that are no strategy's
    begun = [state is not None and any((state / f"task_{number}").rglob("*.ckpt")) for number in range(len(shown))]
    result = protocol.run(learner, shown, state)
    # What went on from an earlier stop took longer than it did now.
    steps = [
        replace(step, seconds=math.nan) if known else step for step, known in zip(result.steps, begun, strict=True)
    ]
    run = StreamRun(cell, None, replace(result, steps=tuple(steps)))
    return _with_proof(run, learner, shown) if isinstance(learner, Structured) else run


def _with_proof(run: StreamRun, learner: Structured, shown: Sequence[Task]) -> StreamRun:
    """What the structured learner alone can tell: who owns what, whether anything has changed, and what task it is."""
    changed = learner.learner.forgotten()
    notices = (*learner.learner.notices, *changed)
    answers = untold.measure(learner.learner, shown, run.cell.seed)
    return replace(run, owners=learner.owners, notices=notices, proved=not changed, untold=answers)


def write_tables(runs: Sequence[StreamRun], folder: Path) -> None:
    """Write the tables of runs, of steps and of single measurements (CSV), all of it (JSON), and a summary."""
    write_whole(folder / "results.csv", runs_csv(runs))
    write_whole(folder / "steps.csv", steps_csv(runs))
    write_whole(folder / "accuracies.csv", accuracies_csv(runs))
    write_whole(folder / "results.json", json.dumps([to_json(run) for run in runs], indent=1, allow_nan=False) + "\n")
    write_whole(folder / "summary.md", markdown(runs))


def write_pictures(runs: Sequence[StreamRun], folder: Path) -> None:
    """Draw what there is to draw."""
    from structured_ensembles.continual.results import pictures

    with suppress(DataError):  # nothing to draw: all runs failed
        pictures.draw(runs, folder)


def write_page(runs: Sequence[StreamRun], folder: Path, data: str, settings: Mapping[str, object]) -> None:
    """Write the page that people read, if there is anything to tell.

    Args:
        runs: All of the grid.
        folder: Where ``stream.html`` goes.
        data: What the tasks were made of, as people call it.
        settings: What repeats the runs.
    """
    from structured_ensembles.continual.results import report

    with suppress(DataError):
        report.write(folder / "stream.html", runs, data, settings)
