"""`structens continual`: one network for a stream of tasks, every strategy under one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from structured_ensembles.cli.grids import asked, at_once, gridded, opened, plan_of, show, tell_failure
from structured_ensembles.cli.printing import head, line, note, quoted, say
from structured_ensembles.cli.verb import folder_for
from structured_ensembles.options.plans import StreamGrid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structured_ensembles.continual.learner.tasks import Task

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


@gridded("continual", StreamGrid, _EXAMPLES)
def continual(**parameters: Any) -> None:  # noqa: ANN401 (click's)
    """Learn one task after the other in one network, and measure forgetting.

    Images become a STREAM of tasks. Every STRATEGY learns it from the first task to the last, with every seed: after
    each task, all tasks so far are measured. Which task an image belongs to is known. A run that fails is reported in
    the table and stops nobody else.

    The strategies: structured (each task owns channels that nothing later changes), single_task (a network for each
    task), joint (all data at once: the upper bound), naive (nothing is protected: the lower bound), ewc and replay
    (which forget less), and packnet, supsup, piggyback, wsn, hat and batch_ensemble (masks or factors of one network).
    """
    from structured_ensembles.cli import configuration
    from structured_ensembles.cli.folder import check_new
    from structured_ensembles.continual.results.tables import console, notices
    from structured_ensembles.experiments import streams

    grid = asked("continual", StreamGrid, configuration.streams, parameters)
    plan = grid.plan
    kind = [] if plan.sources or plan.kind == "split" else [str(plan.kind)]
    default = folder_for(plan.sources or [plan.data], *kind, plan.architecture, verb="continual")
    folder = parameters["out"] or default
    jobs, resume = at_once(parameters["jobs"]), parameters["resume"]
    if not resume:
        check_new(folder, "continual")
    asked_for = streams.work(grid)
    sources = asked_for.load()
    for images in sources:
        note(images.notices)
    tasks = streams.stream(plan, sources, grid.seeds[0])
    streams.network(plan, tasks[0])
    _introduce(tasks)
    say(plan_of(grid.strategies, "strategy", "strategies", len(asked_for.cells), jobs, folder))
    with opened("continual", grid, folder, sources, resume=resume):
        runs = asked_for.carry_out(sources, folder, jobs)
        streams.write_tables(runs, folder)
        streams.write_pictures(runs, folder)
        names = ", ".join(images.name for images in sources)
        streams.write_page(runs, folder, names, configuration.common(grid))
        show(runs, console, folder, _FILES, notices(runs))
        head("Next")
        line(f"  structens continual --resume --seeds 5 --out {quoted(folder)}")
        tell_failure([one.error for one in runs], "continual", folder)


def _introduce(tasks: Sequence[Task]) -> None:
    """The stream in a few sentences."""
    shown = [task.name for task in tasks[:3]] + ["..."] * (len(tasks) > 4) + [task.name for task in tasks[3:][-1:]]
    images = {len(task.train) for task in tasks}
    count = f"{min(images):,}" if len(images) == 1 else f"{min(images):,} to {max(images):,}"
    say(f"{len(tasks)} tasks of {count} training images each: {'; '.join(shown)}.")
