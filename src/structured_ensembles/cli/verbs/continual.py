"""`structens continual`: one network for a stream of tasks, every strategy under one protocol."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from structured_ensembles.cli.grids import at_once, extended, kept, plan_of, tell_failure
from structured_ensembles.cli.kinds import Whole
from structured_ensembles.cli.options import STREAMED, Sectioned, declared
from structured_ensembles.cli.verb import plugin_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structured_ensembles.continual.learner.tasks import Task
    from structured_ensembles.continual.results.records import StreamRun
    from structured_ensembles.data.sources import ImageData
    from structured_ensembles.options.plans import StreamGrid, StreamPlan

_EXAMPLES = """
structens continual                                             all strategies, ten digits as five tasks of two
structens continual --data CIFAR100 --tasks 10 --architecture half_vgg11 --seeds 3
structens continual --stream permuted --tasks 10 --strategies structured,single_task,naive
structens continual --sources a.npz,b.npz,c.npz --keep 0.25
structens continual --resume --seeds 5 --out runs/streams       go on where it was stopped, or add seeds
"""
_FILES = (
    ("stream.html", "what came of it, in words and pictures"),
    ("summary.md", "means and spread over the seeds"),
    ("results.csv, results.json", "one row a run; everything"),
    ("steps.csv", "one row a task learned: seconds, bytes, capacity left"),
    ("accuracies.csv", "one row a measurement: every task after every task"),
    ("accuracy.png", "accuracy over the stream"),
    ("matrix.png", "every task after every task"),
    ("memory.png", "bytes over the stream, beside separate networks"),
    ("capacity.png", "what is left of each layer"),
    ("owners.png", "which task owns which channels"),
    ("continual.yaml", "every setting; repeat it with: structens continual --config"),
)


@click.command(cls=Sectioned, options=STREAMED, examples=_EXAMPLES)
@declared(*STREAMED.values())
@plugin_option
@click.option("--config", metavar="FILE.yaml", help="Read options from a file, one `name: value` a line.")
@click.option("--jobs", type=Whole(), help="Runs at once. [default: one for each core; 1 with a GPU]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="A new folder. [default: runs/continual-DATA-ARCHITECTURE]"
)
@click.option("--resume", is_flag=True, help="Go on with the comparison in --out, or add to it.")
def continual(config: str | None, jobs: int | None, out: Path | None, *, resume: bool, **parameters: Any) -> None:  # noqa: ANN401
    """Learn one task after the other in one network, and measure what is forgotten.

    Images become a STREAM of tasks. Every STRATEGY learns it from the first task to the last, with every seed: after
    each task, all tasks so far are measured. Which task an image belongs to is known. A run that fails is reported in
    the table and stops nobody else.

    The strategies: structured (each task owns channels that nothing later changes), single_task (a network for each
    task), joint (all data at once: the upper bound), naive (nothing is protected: the lower bound), ewc and replay
    (which forget less), and packnet, supsup, piggyback, wsn, hat and batch_ensemble (masks or factors of one network).
    """
    from structured_ensembles.cli import configuration

    file = configuration.read(config, STREAMED) if config else {}
    values = configuration.merged(file, configuration.given(parameters, STREAMED), STREAMED)
    grid = (
        extended("continual", out, values, STREAMED, configuration.streams) if resume else configuration.streams(values)
    )
    _work(grid, out or Path("runs") / f"continual-{_name(grid.plan)}", at_once(jobs), resume=resume)


def _name(plan: StreamPlan) -> str:
    """Of the default folder: of the data's files or folders, and of the architecture."""
    paths = [Path(source).expanduser() for source in plan.sources or (plan.data,)]
    names = [path.stem or path.resolve().stem for path in paths]
    kind = [] if plan.sources or plan.kind == "split" else [str(plan.kind)]
    return re.sub(r"[^\w.-]+", "-", "-".join([*names, *kind, plan.architecture]))


def _work(grid: StreamGrid, folder: Path, jobs: int, *, resume: bool) -> None:
    from structured_ensembles.cli import configuration
    from structured_ensembles.cli.folder import CONFIGURATIONS, check_new, reserved
    from structured_ensembles.cli.printing import note, say
    from structured_ensembles.experiments import streams
    from structured_ensembles.experiments.grids import claim
    from structured_ensembles.files.whole import write_whole

    if not resume:
        check_new(folder, "continual")
    sources = streams.load(grid.plan)
    for images in sources:
        note(images.notices)
    tasks = streams.stream(grid.plan, sources, grid.seeds[0])
    streams.network(grid.plan, tasks[0])
    _introduce(tasks)
    say(plan_of(grid.strategies, "strategy", "strategies", len(streams.cells(grid)), jobs, folder))
    text = configuration.text(grid)
    with kept(folder, "continual"):
        if resume:
            claim(folder, *sources)
            write_whole(folder / CONFIGURATIONS["continual"], text)
            _finish(grid, sources, folder, jobs)
        else:
            with reserved(folder, text, "continual"):
                _finish(grid, sources, folder, jobs)


def _introduce(tasks: Sequence[Task]) -> None:
    """The stream in a few sentences."""
    from structured_ensembles.cli.printing import say

    shown = [task.name for task in tasks[:3]] + ["..."] * (len(tasks) > 4) + [task.name for task in tasks[3:][-1:]]
    images = {len(task.train) for task in tasks}
    count = f"{min(images):,}" if len(images) == 1 else f"{min(images):,} to {max(images):,}"
    say(f"{len(tasks)} tasks of {count} training images each: {'; '.join(shown)}.")


def _finish(grid: StreamGrid, sources: Sequence[ImageData], folder: Path, jobs: int) -> None:
    from structured_ensembles.cli import configuration
    from structured_ensembles.experiments import streams

    runs = streams.work(grid).carry_out(sources, folder, jobs)
    streams.write_tables(runs, folder)
    streams.write_pictures(runs, folder)
    names = ", ".join(images.name for images in sources)
    streams.write_page(runs, folder, names, configuration.common(grid))
    _report(runs, folder)
    tell_failure([one.error for one in runs], "continual", folder)


def _report(runs: Sequence[StreamRun], folder: Path) -> None:
    from rich.console import Console

    from structured_ensembles.cli.printing import head, line, note, quoted, say
    from structured_ensembles.continual.results.tables import console, notices

    say()
    console(runs, Console(highlight=False))
    note(notices(runs))
    head(f"In {folder}")
    for name, what in _FILES:
        if (folder / name.split(",")[0]).exists():  # no pictures if there was nothing to draw
            line(f"  {name:<28}{what}")
    head("Next")
    line(f"  structens continual --resume --seeds 5 --out {quoted(folder)}")
