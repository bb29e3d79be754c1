"""What `compare` and `continual` share: a grid of runs in a folder, which can be gone on with and added to."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from structured_ensembles.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from structured_ensembles.cli.options import Option
    from structured_ensembles.options.plans import Grid, StreamGrid

G = TypeVar("G", bound="Grid | StreamGrid")


def at_once(jobs: int | None) -> int:
    """How many runs go on at the same time, where the user did not say: one for each core, or one on a GPU.

    Raises:
        SettingsError: The user asked for less than one.
    """
    import torch

    if jobs is not None and jobs < 1:
        raise SettingsError(f"jobs {jobs} must be at least 1")
    return jobs or (1 if torch.cuda.is_available() else len(_cores()))


def _cores() -> Sequence[int]:
    """The processor cores that this process may use."""
    import os

    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def extended(
    verb: str,
    out: Path | None,
    values: Mapping[str, Any],
    options: Mapping[str, Option],
    make: Callable[[Mapping[str, Any]], G],
) -> G:
    """The grid in a folder, with what the user adds to it.

    Args:
        verb: Of the command.
        out: The folder.
        values: What the user wrote.
        options: Of the verb.
        make: A grid of values.

    Raises:
        SettingsError: There is no folder or no grid in it, or something else than an axis has changed.
    """
    from structured_ensembles.cli import configuration
    from structured_ensembles.cli.folder import CONFIGURATIONS
    from structured_ensembles.cli.options import axes
    from structured_ensembles.cli.session import check_same

    if out is None:
        raise SettingsError("--resume needs --out, the folder of the comparison to go on with")
    path = out / CONFIGURATIONS[verb]
    if not path.exists():
        raise SettingsError(f"there is no comparison in {out} to go on with (no {path.name}): leave out --resume")
    stored = configuration.read(path, options)
    grid, asked = make(stored), make(configuration.merged(stored, values, options))
    check_same(out, configuration.common(grid), configuration.common(asked))
    both = {axis: [*getattr(grid, axis), *getattr(asked, axis)] for axis in axes(options)}
    return make({**stored, **{axis: list(dict.fromkeys(both[axis])) for axis in both}})


def plan_of(arms: Sequence[str], one: str, several: str, runs: int, jobs: int, folder: Path) -> str:
    """What is about to be run, in a sentence; the arms are called ``one`` or ``several``."""
    counted = f"{len(arms)} {one if len(arms) == 1 else several}, {runs} run{'s' * (runs > 1)}"
    return f"{counted}, {jobs} at once. Results go to {folder}."


@contextmanager
def kept(folder: Path, verb: str) -> Iterator[None]:
    """Whoever interrupts is told how to go on."""
    from structured_ensembles.cli.printing import line, resuming

    try:
        yield
    except KeyboardInterrupt:
        line(f"\nNothing that was finished is lost. Go on with:  {resuming(folder, verb)}")
        raise


def tell_failure(errors: Sequence[str | None], verb: str, folder: Path) -> None:
    """End with status 1 if no run succeeded: a script must not go on as if there were results.

    Args:
        errors: Of every run, or None.
        verb: Of the command.
        folder: Of the grid.
    """
    import click

    from structured_ensembles.cli.printing import resuming

    first, *_ = errors or (None,)
    if first and all(errors):
        remedy = f"If that can be mended, run them again: {resuming(folder, verb)}"
        click.echo(f"Every run failed. The first: {first.rstrip('.')}. {remedy}", err=True)
        raise click.exceptions.Exit(1)
