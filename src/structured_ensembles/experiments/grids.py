"""Cells of any grid, each written down when it is done: a stop loses only what was under way."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from structured_ensembles.errors import ArtefactError, SettingsError
from structured_ensembles.execution.local import run
from structured_ensembles.files.whole import write_whole
from structured_ensembles.progress import Bar, bar

if TYPE_CHECKING:
    from pathlib import Path


CELLS, STATE = "cells", "state"
"""Of a grid's folder: where the results are, and what unfinished cells go on from."""


class Cell(Protocol):
    """One run of a grid; it can be compared, hashed and sent to another process."""

    @property
    def kind(self) -> str:
        """What it has in common with cells that take as long."""
        ...

    @property
    def name(self) -> str:
        """Of its file: no other cell of the grid has it."""
        ...


class Outcome(Protocol):
    """What came of a cell."""

    @property
    def cell(self) -> Any:  # noqa: ANN401 (of the grid's own type)
        """Which one."""
        ...

    @property
    def error(self) -> str | None:
        """Why it failed; None if it finished."""
        ...

    @property
    def seconds(self) -> float | None:
        """How long it took, where that was measured."""
        ...


def check_axis(name: str, values: Sequence[object], written: Sequence[object] = ()) -> None:
    """Refuse an axis of a grid that is empty, or holds something twice.

    Args:
        name: What the axis is called.
        values: What it holds.
        written: How the user wrote it, where that is something else.

    Raises:
        SettingsError: It is; naming what is there twice.
    """
    rule, words = f"{name} must be at least one, and none twice", written or values
    if not values:
        raise SettingsError(rule)
    for at, value in enumerate(values):
        if (first := values.index(value)) < at:
            raise SettingsError(f"{rule}: {words[first]}, {words[at]}")


def fill(
    cells: Sequence[C],
    known: Sequence[R],
    here: Callable[[C], R],
    there: Callable[[], Callable[[C], R]],
    jobs: int,
    description: str,
) -> None:
    """Run every cell that has not finished yet, failed ones again.

    Each cell computes on one thread: its numbers do not depend on how many run at once.

    Args:
        cells: All of the grid.
        known: What is known of them already.
        here: Runs one in this process, and writes its result down.
        there: In another process, makes what does the same there; it is called once in each.
        jobs: How many run at once; 1 stays in this process.
        description: For the progress bar.

    Raises:
        SettingsError: A process was killed; what was finished is kept.
    """
    finished = [result for result in known if result.error is None]
    done = {result.cell for result in finished}
    waiting = [cell for cell in cells if cell not in done]
    with bar(description, len(done) + len(waiting), done=len(done)) as shown:
        told = _Told(shown, finished, waiting, jobs)
        told.note()
        for result in run(waiting, here, there, jobs):
            told.add(result)


def write(folder: Path, result: Outcome, plain: object) -> None:
    """Write a result down, as the JSON that ``plain`` is."""
    write_whole(_path(folder, result.cell), json.dumps(plain, indent=1, allow_nan=False) + "\n")


def read(folder: Path, cells: Sequence[C], parsed: Callable[[object], R]) -> list[R]:
    """What was written down of some cells, in their order.

    Args:
        folder: Of the grid.
        cells: Which ones.
        parsed: Makes a result of plain values; ArtefactError if they are none.

    Raises:
        ArtefactError: A file is damaged.
    """
    return [_read(_path(folder, cell), cell, parsed) for cell in cells if _path(folder, cell).exists()]


def _path(folder: Path, cell: Cell) -> Path:
    return folder / CELLS / f"{cell.name}.json"


def _read(path: Path, cell: Cell, parsed: Callable[[object], R]) -> R:
    try:
        result = parsed(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError, ArtefactError) as error:
        raise ArtefactError(f"{path} is damaged ({error}): delete it to run that cell again") from error
    if result.cell != cell:
        raise ArtefactError(f"{path} holds another cell, {result.cell}: delete it to run that cell again")
    return result


class _Told:
    """What the progress bar says: the last cell, and how long the rest should take."""

    def __init__(self, shown: Bar, done: Sequence[Outcome], waiting: Sequence[Cell], jobs: int) -> None:
        self.shown, self.waiting, self.jobs = shown, list(waiting), jobs
        self.seconds: dict[str, list[float]] = defaultdict(list)
        for result in done:
            self._learn(result)

    def add(self, result: Outcome) -> None:
        """One more is done."""
        self.waiting.remove(result.cell)
        self._learn(result)
        self.shown.advance()
        self.note(f"{result.cell.name}{' FAILED' if result.error else ''}")

    def note(self, last: str = "") -> None:
        """Show it."""
        known = [seconds for many in self.seconds.values() for seconds in many]
        if not known:
            return
        left = sum(fmean(self.seconds.get(cell.kind) or known) for cell in self.waiting) / self.jobs
        self.shown.note(" · ".join(part for part in (last, f"about {left / 60:.0f} min left") if part))

    def _learn(self, result: Outcome) -> None:
        if result.seconds is not None:
            self.seconds[result.cell.kind].append(result.seconds)


C = TypeVar("C", bound=Cell)


R = TypeVar("R", bound=Outcome)
