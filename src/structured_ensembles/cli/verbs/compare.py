"""`structens compare`: every method, under one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from structured_ensembles.cli.grids import at_once, extended, kept, plan_of, tell_failure
from structured_ensembles.cli.kinds import Whole
from structured_ensembles.cli.options import COMPARED, Sectioned, declared
from structured_ensembles.cli.verb import plugin_option
from structured_ensembles.cli.verbs.fit import default_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structured_ensembles.experiments.comparison.records import Result
    from structured_ensembles.options.plans import Grid

_EXAMPLES = """
structens compare --seeds 3                                          all methods, on handwritten digits
structens compare --data my_images/ --architecture resnet20 --methods single,structured,narrow,deep
structens compare --data mnist.npz --members 2,4 --budgets 0.5x,1x,2x --seeds 5 --out runs/grid
structens compare --resume --out runs/grid                           go on where it was stopped
structens compare --resume --seeds 10 --out runs/grid                add seeds to it
"""
_FILES = (
    ("results.csv, results.json", "one row a run"),
    ("summary.md", "means, spread, paired differences with intervals"),
    ("cost.png", "accuracy, NLL and ECE against bytes"),
    ("training_cost.png", "accuracy against what training costs"),
    ("diversity.png", "accuracy against how often members disagree"),
)


@click.command(cls=Sectioned, options=COMPARED, examples=_EXAMPLES)
@declared(*COMPARED.values())
@plugin_option
@click.option("--config", metavar="FILE.yaml", help="Read options from a file, one `name: value` a line.")
@click.option("--jobs", type=Whole(), help="Runs at once. [default: one for each core; 1 with a GPU]")
@click.option("--out", type=click.Path(path_type=Path), help="A new folder. [default: runs/compare-DATA-ARCHITECTURE]")
@click.option("--resume", is_flag=True, help="Go on with the comparison in --out, or add to it.")
def compare(config: str | None, jobs: int | None, out: Path | None, *, resume: bool, **parameters: Any) -> None:  # noqa: ANN401
    """Set a structured ensemble beside its rivals, at equal bytes.

    Every METHOD is trained for every number of MEMBERS, every BUDGET and every seed, on the same images, split, epochs
    and schedule. Methods that cannot choose their size are run once for each number of members. A run that fails is
    reported in the table and stops nobody else.

    The methods: single (one network), deep (whole networks), structured, and published (the published search and
    selection, whatever the options for these say, with the training of all the others); the control arms narrow and
    narrow_sliced (independent networks of uniform width, with an initialisation of their own or sliced from a wide
    one), random, shuffled (structured's widths, random channels) and magnitude; and the rivals packed, mc_dropout,
    snapshot, batch_ensemble, masksembles and mimo. packed and masksembles need a package:
    pip install 'structured-ensembles[compare]'.
    """
    from structured_ensembles.cli import configuration

    file = configuration.read(config, COMPARED) if config else {}
    values = configuration.merged(file, configuration.given(parameters, COMPARED), COMPARED)
    grid = (
        extended("compare", out, values, COMPARED, configuration.comparison)
        if resume
        else configuration.comparison(values)
    )
    folder = out or Path("runs") / f"compare-{default_name(grid.plan)}"
    _work(grid, folder, at_once(jobs), resume=resume)


def _work(grid: Grid, folder: Path, jobs: int, *, resume: bool) -> None:
    from structured_ensembles.cli import configuration
    from structured_ensembles.cli.folder import CONFIGURATIONS, check_new, reserved
    from structured_ensembles.cli.printing import note, say
    from structured_ensembles.cli.session import describe
    from structured_ensembles.data import sources as datasets
    from structured_ensembles.experiments import run
    from structured_ensembles.experiments.comparison.grid import cells
    from structured_ensembles.experiments.grids import claim
    from structured_ensembles.files.whole import write_whole

    if not resume:
        check_new(folder, "compare")
    images = datasets.load(grid.plan.data, image_size=grid.plan.image_size)
    note(images.notices)
    run.network(grid.plan, images)
    say(describe(images))
    say(plan_of(grid.methods, "method", "methods", len(cells(grid)), jobs, folder))
    with kept(folder, "compare"):
        if resume:
            claim(folder, images)
            write_whole(folder / CONFIGURATIONS["compare"], configuration.text(grid))
            _finish(grid, images, folder, jobs)
        else:
            with reserved(folder, configuration.text(grid), "compare"):
                _finish(grid, images, folder, jobs)


def _finish(grid: Grid, images: Any, folder: Path, jobs: int) -> None:  # noqa: ANN401 (data.ImageData, not imported here)
    from structured_ensembles.experiments.comparison.grid import work
    from structured_ensembles.experiments.comparison.writing import write_tables

    results = work(grid).carry_out(images, folder, jobs)
    write_tables(grid, images, results, folder)
    _report(results, folder)
    tell_failure([result.error for result in results], "compare", folder)


def _report(results: Sequence[Result], folder: Path) -> None:
    from rich.console import Console

    from structured_ensembles.cli.printing import head, line, say
    from structured_ensembles.experiments.comparison.tables import console

    say()
    console(results, Console(highlight=False))
    head(f"In {folder}")
    for name, what in _FILES:
        if (folder / name.split(",")[0]).exists():  # no pictures if there was nothing to draw
            line(f"  {name:<28}{what}")
