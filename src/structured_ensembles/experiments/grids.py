"""Cells of any grid, each written down when it is done: a stop loses only what was under way."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Generic, Protocol, TypeVar

from structured_ensembles.data.examples import Examples, fingerprint
from structured_ensembles.data.sources import ImageData
from structured_ensembles.errors import ArtefactError, StructensError
from structured_ensembles.execution.local import run
from structured_ensembles.files import marks
from structured_ensembles.files.whole import write_whole
from structured_ensembles.progress import Bar, bar

CELLS, STATE = "cells", "state"
"""Of a grid's folder: where the results are, and what unfinished cells go on from."""


class Cell(Protocol):
    """One run of a grid; it can be compared, hashed and sent to another process."""

    @property
    def kind(self) -> str:
        """What it has in common with cells that take as long."""

    @property
    def name(self) -> str:
        """Of its file: no other cell of the grid has it."""


class Outcome(Protocol):
    """What came of a cell."""

    @property
    def cell(self) -> Any:  # noqa: ANN401 (of the grid's own type)
        """Which one."""

    @property
    def error(self) -> str | None:
        """Why it failed; None if it finished."""

    @property
    def seconds(self) -> float | None:
        """How long it took, where that was measured."""


C = TypeVar("C", bound=Cell)


R = TypeVar("R", bound=Outcome)


@dataclass(frozen=True)
class Work(Generic[C, R]):
    """The cells of a grid, and how one is run; it can be sent to another process.

    Attributes:
        cells: All of the grid.
        load: Reads the data that they share.
        run: Of a cell, those data and a folder to go on from, what came of it; whatever goes wrong is a result too.
        plain: Of a result, what JSON can hold.
        parsed: Makes a result of plain values; ArtefactError if they are none.
        description: For the progress bar.
    """

    cells: Sequence[C]
    load: Callable[[], Any]
    run: Callable[[C, Any, Path], R]
    plain: Callable[[R], object]
    parsed: Callable[[object], R]
    description: str

    def carry_out(self, data: Any, folder: Path, jobs: int = 1) -> list[R]:  # noqa: ANN401 (what `load` gives)
        """Run every cell that has no result yet, failed ones again; all results of the grid come back.

        Each cell computes on one thread: its numbers do not depend on how many run at once.

        Args:
            data: What `load` gives.
            folder: Where results and the state of unfinished cells are kept; made if missing.
            jobs: How many run at once, each in a process of its own; 1 stays in this one.

        Raises:
            SettingsError: The folder's results are of other images; or a process was killed, and what was finished is
                kept.
        """
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
        claim(folder, *(data if isinstance(data, list) else [data]))
        finished = [result for result in self.results(folder) if result.error is None]
        done = {result.cell for result in finished}
        waiting = [cell for cell in self.cells if cell not in done]
        here, there = partial(_one, self, data, folder), partial(_prepared, self, folder)
        with bar(self.description, len(done) + len(waiting), done=len(done)) as shown:
            told = _Told(shown, finished, waiting, jobs)
            told.note()
            for result in run(waiting, here, there, jobs):
                told.add(result)
        return self.results(folder)

    def results(self, folder: Path) -> list[R]:
        """What was written down of the cells, in their order.

        Raises:
            ArtefactError: A file is damaged.
        """
        paths = {cell: _path(folder, cell) for cell in self.cells}
        return [_read(path, cell, self.parsed) for cell, path in paths.items() if path.exists()]


def attempted(run: Callable[[], R], failed: Callable[[str], R]) -> R:
    """What a cell gives; what goes wrong is its result, and stops nobody else."""
    try:
        return run()
    except StructensError as error:
        return failed(" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 (the other cells of a night's work must not be lost)
        return failed(" ".join(f"failed with {type(error).__name__}: {error}".split()))


def claim(folder: Path, *sources: ImageData) -> None:
    """Refuse a folder whose results come from other images, or make it theirs.

    Raises:
        SettingsError: It is not theirs.
    """
    splits = [split for images in sources for split in (images.train, images.test)]
    found = fingerprint(*map(Examples.of, splits))
    marks.claim(folder, found, f"{folder} holds results on other images: choose another folder")


def _prepared(work: Work[C, R], folder: Path) -> Callable[[C], R]:
    """In a process that has read nothing yet, what runs a cell."""
    return partial(_one, work, work.load(), folder)


def _one(work: Work[C, R], data: Any, folder: Path, cell: C) -> R:  # noqa: ANN401
    state = folder / STATE / cell.name
    result = work.run(cell, data, state)
    write_whole(_path(folder, cell), json.dumps(work.plain(result), indent=1, allow_nan=False) + "\n")
    shutil.rmtree(state, ignore_errors=True)
    return result


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
