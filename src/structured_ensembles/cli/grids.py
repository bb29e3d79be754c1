"""What `compare` and `continual` share: a grid of runs in a folder, which can be gone on with and added to."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from structured_ensembles.cli.kinds import Whole
from structured_ensembles.cli.options import Sectioned, axes, declared, options_of
from structured_ensembles.cli.printing import head, line, note, resuming, say
from structured_ensembles.cli.verb import plugin_option, together
from structured_ensembles.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import Console

    from structured_ensembles.cli.verb import Command
    from structured_ensembles.data.sources import ImageData
    from structured_ensembles.experiments.grids import Outcome
    from structured_ensembles.options.plans import Grid, StreamGrid

G = TypeVar("G", bound="Grid | StreamGrid")
R = TypeVar("R", bound="Outcome")


def gridded(verb: str, grid: type[Grid | StreamGrid], examples: str) -> Callable[[Command], Command]:
    """Make a function the verb of a grid: with its options, and those of all grids."""
    out = f"A new folder. [default: runs/{verb}-DATA-ARCHITECTURE]"
    return together(
        click.command(cls=Sectioned, options=options_of(grid), examples=examples),
        declared(*options_of(grid).values()),
        plugin_option,
        click.option("--config", metavar="FILE.yaml", help="Read options from a file, one `name: value` a line."),
        click.option("--jobs", type=Whole(), help="Runs at once. [default: one for each core; 1 with a GPU]"),
        click.option("--out", type=click.Path(path_type=Path), help=out),
        click.option("--resume", is_flag=True, help="Go on with the comparison in --out, or add to it."),
    )


def asked(verb: str, kind: type[G], make: Callable[[Mapping[str, Any]], G], parameters: Mapping[str, Any]) -> G:
    """The grid that the user asked for, in a configuration, on the command line or in the folder that they go on with.

    Args:
        verb: Of the command.
        kind: Of grid.
        make: A grid of values.
        parameters: Click's.

    Raises:
        SettingsError: A value is outside its limits, or the grid in the folder cannot be gone on with so.
    """
    from structured_ensembles.cli import configuration

    file = configuration.read(parameters["config"], kind) if parameters["config"] else {}
    values = configuration.merged(file, configuration.given(parameters, kind), kind)
    return _extended(verb, parameters["out"], values, kind, make) if parameters["resume"] else make(values)


def at_once(jobs: int | None) -> int:
    """How many runs go on at the same time, where the user did not say: one for each core, or one on a GPU.

    Raises:
        SettingsError: The user asked for less than one.
    """
    import os

    import torch

    if jobs is not None and jobs < 1:
        raise SettingsError(f"jobs {jobs} must be at least 1")
    # The processor cores that this process may use, where the system tells.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return jobs or (1 if torch.cuda.is_available() else cores)


def _extended(
    verb: str, out: Path | None, values: Mapping[str, Any], kind: type[G], make: Callable[[Mapping[str, Any]], G]
) -> G:
    """The grid in a folder, with what the user adds to it.

    Args:
        verb: Of the command.
        out: The folder.
        values: What the user wrote.
        kind: Of grid.
        make: A grid of values.

    Raises:
        SettingsError: There is no folder or no grid in it, or something else than an axis has changed.
    """
    from structured_ensembles.cli import configuration
    from structured_ensembles.cli.folder import CONFIGURATIONS
    from structured_ensembles.cli.session import check_same

    if out is None:
        raise SettingsError("--resume needs --out, the folder of the comparison to go on with")
    path = out / CONFIGURATIONS[verb]
    if not path.exists():
        raise SettingsError(f"there is no comparison in {out} to go on with (no {path.name}): leave out --resume")
    stored = configuration.read(path, kind)
    grid, asked = make(stored), make(configuration.merged(stored, values, kind))
    check_same(out, configuration.common(grid), configuration.common(asked))
    both = {axis: [*getattr(grid, axis), *getattr(asked, axis)] for axis in axes(kind)}
    return make({**stored, **{axis: list(dict.fromkeys(both[axis])) for axis in both}})


def plan_of(arms: Sequence[str], one: str, several: str, runs: int, jobs: int, folder: Path) -> str:
    """What is about to be run, in a sentence; the arms are called ``one`` or ``several``."""
    counted = f"{len(arms)} {one if len(arms) == 1 else several}, {runs} run{'s' * (runs > 1)}"
    return f"{counted}, {jobs} at once. Results go to {folder}."


@contextmanager
def opened(
    verb: str, grid: Grid | StreamGrid, folder: Path, data: Sequence[ImageData], *, resume: bool
) -> Iterator[None]:
    """The folder of a grid, new or gone on with; whoever interrupts is told how to go on.

    Raises:
        SettingsError: It exists, or holds results on other images.
    """
    from structured_ensembles.cli import configuration
    from structured_ensembles.cli.folder import CONFIGURATIONS, reserved
    from structured_ensembles.experiments.grids import claim
    from structured_ensembles.files.whole import write_whole

    try:
        if resume:
            claim(folder, *data)
            write_whole(folder / CONFIGURATIONS[verb], configuration.text(grid))
            yield
        else:
            with reserved(folder, configuration.text(grid), verb):
                yield
    except KeyboardInterrupt:
        line(f"\nNothing that was finished is lost. Go on with:  {resuming(folder, verb)}")
        raise


def show(
    runs: Sequence[R],
    console: Callable[[Sequence[R], Console], None],
    folder: Path,
    files: Sequence[tuple[str, str]],
    notices: Sequence[str] = (),
) -> None:
    """The tables of finished runs, what is to be known of them, and where to look."""
    from rich.console import Console as Terminal

    say()
    console(runs, Terminal(highlight=False))
    note(notices)
    head(f"In {folder}")
    for name, what in files:
        if (folder / name.split(",")[0]).exists():  # no pictures if there was nothing to draw
            line(f"  {name:<28}{what}")


def tell_failure(errors: Sequence[str | None], verb: str, folder: Path) -> None:
    """End with status 1 if no run succeeded: a script must not go on as if there were results.

    Args:
        errors: Of every run, or None.
        verb: Of the command.
        folder: Of the grid.
    """
    first, *_ = errors or (None,)
    if first and all(errors):
        remedy = f"If that can be mended, run them again: {resuming(folder, verb)}"
        click.echo(f"Every run failed. The first: {first.rstrip('.')}. {remedy}", err=True)
        raise click.exceptions.Exit(1)
