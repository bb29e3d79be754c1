"""`structens compare`: every method, under one protocol."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from structured_ensembles.cli.kinds import Several, Text, Whole
from structured_ensembles.cli.options import OPTIONS, Sectioned, declared
from structured_ensembles.errors import ArtefactError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from structured_ensembles.evaluation.comparison import Result
    from structured_ensembles.experiments import Grid
    from structured_ensembles.run import Plan

_OWN = ("members", "seed", "against", "budget", "keep")
"""Options of `fit` that a grid has in another form."""
_GRID = "grid.json"
_AXES: Mapping[str, type] = {"methods": str, "members": int, "budgets": str, "seeds": int}
"""Of what kind the values of each axis are."""
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


@click.command(cls=Sectioned, examples=_EXAMPLES)
@click.option("--methods", type=Several(Text()), help="Which, or all. [default: all]")
@click.option("--members", type=Several(Whole()), help="How many networks answer together; each number. [default: 4]")
@click.option("--budgets", type=Several(Text()), help="What they may cost, where a method can choose. [default: 1x]")
@click.option("--seeds", type=Text(), help="How many, or which: 5, 5-9 or 3,7. [default: 5]")
@declared(*(option for name, option in OPTIONS.items() if name not in _OWN))
@click.option("--config", metavar="FILE.yaml", help="Read options from a file, one `name: value` a line.")
@click.option("--jobs", type=Whole(), help="Runs at once. [default: one for each core; 1 with a GPU]")
@click.option("--out", type=click.Path(path_type=Path), help="A new folder. [default: runs/compare-DATA-ARCHITECTURE]")
@click.option("--resume", is_flag=True, help="Go on with the comparison in --out, or extend it.")
def compare(config: str | None, jobs: int | None, out: Path | None, *, resume: bool, **parameters: Any) -> None:  # noqa: ANN401
    """Set a structured ensemble beside its rivals, at equal bytes.

    Every METHOD is trained for every number of MEMBERS, every BUDGET and every seed, on the same images, split, epochs
    and schedule. Methods that cannot choose their size are run once for each number of members. A run that fails is
    reported in the table and stops nobody else.

    The methods: single (one network), deep (whole networks), structured and published (its two presets); the control
    arms narrow and narrow_sliced (independent networks of uniform width, with an initialisation of their own or sliced
    from a wide one), random, shuffled (structured's widths, random channels) and magnitude; and the rivals packed,
    mc_dropout, snapshot, batch_ensemble, masksembles and mimo. packed and masksembles need a package:
    pip install 'structured-ensembles[compare]'.
    """
    from structured_ensembles.cli import configuration

    axes = {name: parameters.pop(name) for name in _AXES}
    file = configuration.read(config) if config else {}
    values = configuration.merged(file, configuration.given(parameters))
    grid = _stored(out, values, axes) if resume else _grid(configuration.plan(values), axes)
    folder = out or Path("runs") / re.sub(
        r"[^\w.-]+", "-", f"compare-{Path(grid.plan.data).stem}-{grid.plan.architecture}"
    )
    _work(grid, folder, _at_once(jobs), resume=resume)


def _at_once(jobs: int | None) -> int:
    import torch

    if jobs is not None and jobs < 1:
        raise SettingsError(f"jobs {jobs} must be at least 1")
    return jobs or (1 if torch.cuda.is_available() else len(_cores()))


def _cores() -> Sequence[int]:
    """The processor cores that this process may use."""
    import os

    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _grid(plan: Plan, axes: Mapping[str, Any]) -> Grid:
    from structured_ensembles.experiments import Grid

    return _with_axes(Grid(plan), axes)


def _with_axes(grid: Grid, axes: Mapping[str, Any]) -> Grid:
    """The grid with the axes that the user gave."""
    from structured_ensembles.experiments import ARMS

    given = {name: value for name, value in axes.items() if value is not None}
    if given.get("methods") == ("all",):
        given["methods"] = ARMS
    if isinstance(given.get("seeds"), str):
        given["seeds"] = _seeds(given["seeds"])
    return replace(grid, **given)


def _seeds(text: str) -> tuple[int, ...]:
    """``5``: five of them; ``5-9``: from the first to the last; ``3,7``: these."""
    if re.fullmatch(r"\d{1,6}", text):
        return tuple(range(int(text)))
    if limits := re.fullmatch(r"(\d{1,6})-(\d{1,6})", text):
        return tuple(range(int(limits[1]), int(limits[2]) + 1))
    if re.fullmatch(r"\d{1,6}(,\d{1,6})+", text):
        return tuple(int(seed) for seed in text.split(","))
    raise SettingsError(f"seeds {text!r} is not understood: write 5 (how many), 5-9 or 3,7 (which)")


def _stored(out: Path | None, values: Mapping[str, Any], axes: Mapping[str, Any]) -> Grid:
    """The grid in a folder, extended by what the user asks for."""
    from structured_ensembles.cli import configuration, session
    from structured_ensembles.experiments import Grid

    if out is None:
        raise SettingsError("--resume needs --out, the folder of the comparison to go on with")
    plan = session.stored(out)
    if values:
        session.check_same(out, configuration.resolved(plan), configuration.resolved(configuration.plan(values)))
    try:
        stored = json.loads((out / _GRID).read_text(encoding="utf-8"))
        grid = Grid(plan, **{name: _axis(stored[name], kind) for name, kind in _AXES.items()})
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SettingsError) as error:
        raise ArtefactError(
            f"{out / _GRID} is missing or damaged: start another comparison with another --out"
        ) from error
    asked = _with_axes(grid, axes)
    both = {name: (*getattr(grid, name), *getattr(asked, name)) for name in _AXES}
    return _with_axes(grid, {name: tuple(dict.fromkeys(values)) for name, values in both.items()})


def _axis(values: object, kind: type) -> tuple[Any, ...]:
    """What a file holds of one axis."""
    if not isinstance(values, list) or any(type(value) is not kind for value in values):
        raise TypeError
    return tuple(values)


def _work(grid: Grid, folder: Path, jobs: int, *, resume: bool) -> None:
    from structured_ensembles import data as datasets
    from structured_ensembles import run
    from structured_ensembles.cli import configuration
    from structured_ensembles.cli.folder import check_new, reserved
    from structured_ensembles.cli.printing import note, say
    from structured_ensembles.cli.session import describe
    from structured_ensembles.experiments import cells

    if not resume:
        check_new(folder, "compare")
    images = datasets.load(grid.plan.data, image_size=grid.plan.image_size)
    note(images.notices)
    run.network(grid.plan, images)
    say(describe(images))
    say(f"{len(grid.methods)} methods, {len(cells(grid))} runs, {jobs} at once. Results go to {folder}.")
    with _kept(folder):
        if resume:
            _finish(grid, images, folder, jobs)
        else:
            with reserved(folder, configuration.text(grid.plan), "compare"):
                _finish(grid, images, folder, jobs)


def _finish(grid: Grid, images: Any, folder: Path, jobs: int) -> None:  # noqa: ANN401 (data.ImageData, not imported here)
    from structured_ensembles.experiments import carry_out, write_tables
    from structured_ensembles.files import write_whole

    axes = {name: list(getattr(grid, name)) for name in _AXES}
    write_whole(folder / _GRID, json.dumps(axes) + "\n")
    results = carry_out(grid, images, folder, jobs)
    write_tables(results, folder)
    _report(results, folder)


def _report(results: Sequence[Result], folder: Path) -> None:
    from rich.console import Console

    from structured_ensembles.cli.printing import head, line, say
    from structured_ensembles.evaluation.comparison_report import console

    say()
    console(results, Console(highlight=False))
    head(f"In {folder}")
    for name, what in _FILES:
        if (folder / name.split(",")[0]).exists():  # no pictures if there was nothing to draw
            line(f"  {name:<28}{what}")


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Whoever interrupts is told how to go on."""
    from structured_ensembles.cli.printing import line, quoted

    try:
        yield
    except KeyboardInterrupt:
        line(f"\nNothing that was finished is lost. Go on with:  structens compare --resume --out {quoted(folder)}")
        raise
