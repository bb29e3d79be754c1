"""Run a grid: several cells at once, each written down when it is done: a stop loses only what was under way."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from structured_ensembles import data as datasets
from structured_ensembles.errors import ArtefactError, DataError, SettingsError
from structured_ensembles.evaluation.comparison import Cell, Result, from_json, tidy_csv, to_json
from structured_ensembles.evaluation.comparison_report import markdown
from structured_ensembles.experiments.grid import Grid, cells, fit_cell
from structured_ensembles.files import write_whole
from structured_ensembles.fitting import fingerprint
from structured_ensembles.progress import Bar, bar, quiet

if TYPE_CHECKING:
    from structured_ensembles.data import ImageData

CELLS, STATE = "cells", "state"


def carry_out(grid: Grid, images: ImageData, folder: Path, jobs: int = 1) -> list[Result]:
    """Run every cell that has no result yet, failed ones again; all results of the grid come back.

    Each cell computes on one thread: its numbers do not depend on how many run at once.

    Args:
        grid: What to run.
        images: Its data, loaded.
        folder: Where results and the state of unfinished cells are kept; made if missing.
        jobs: How many cells run at once, each in a process of its own.

    Raises:
        SettingsError: The folder's results are of other images; or a process was killed, and what was finished is kept.
    """
    (folder / CELLS).mkdir(parents=True, exist_ok=True)
    claim(folder, images)
    before = results(grid, folder)
    done = {result.cell for result in before if result.error is None}
    waiting = [cell for cell in cells(grid) if cell not in done]
    with bar("comparing", len(done) + len(waiting), done=len(done)) as shown:
        told = _Told(shown, [result for result in before if result.error is None], waiting, jobs)
        told.note()
        for result in _run(grid, images, waiting, folder, jobs):
            told.add(result)
    return results(grid, folder)


def claim(folder: Path, images: ImageData) -> None:
    """Refuse a folder whose results come from other images, or make it theirs.

    Raises:
        SettingsError: It is not theirs.
    """
    found = fingerprint((datasets.as_dataset(images.train), datasets.as_dataset(images.test)))
    path = folder / "data.sha256"
    if path.exists() and path.read_text(encoding="utf-8") != found:
        raise SettingsError(f"{folder} holds results on other images: choose another folder")
    write_whole(path, found)


def results(grid: Grid, folder: Path) -> list[Result]:
    """What is known of the grid's cells, in their order.

    Raises:
        ArtefactError: A file is damaged.
    """
    paths = [(cell, _path(folder, cell)) for cell in cells(grid)]
    return [_read(path, cell) for cell, path in paths if path.exists()]


def write_tables(found: Sequence[Result], folder: Path) -> None:
    """Write the table of all runs (CSV and JSON), their summary (Markdown), and pictures of what there is to draw."""
    from structured_ensembles.evaluation.comparison_pictures import cost_front, diversity, training_cost

    write_whole(folder / "results.csv", tidy_csv(found))
    write_whole(folder / "results.json", json.dumps([to_json(result) for result in found], indent=1) + "\n")
    write_whole(folder / "summary.md", markdown(found))
    for draw, name in ((cost_front, "cost.png"), (training_cost, "training_cost.png"), (diversity, "diversity.png")):
        with suppress(DataError):  # nothing to draw: all runs failed, or none has several members to disagree
            draw(found, folder / name)


def _run(grid: Grid, images: ImageData, waiting: Sequence[Cell], folder: Path, jobs: int) -> Iterator[Result]:
    """Results in the order in which they come."""
    if jobs == 1:
        with _one_thread():
            for cell in waiting:
                yield _one(grid, cell, images, folder)
        return
    with _workers(grid, jobs) as pool:
        try:
            futures = [pool.submit(_in_worker, cell, folder) for cell in waiting]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise SettingsError(
                f"a process was killed, perhaps for want of memory: go on with fewer at once (--jobs {jobs - 1})"
            ) from error


@contextmanager
def _workers(grid: Grid, jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that know the grid; whatever stops the block stops them too."""
    others = set(multiprocessing.active_children())
    # A process that was forked from one with threads, as torch has, may hang: start them afresh.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _prepare, (grid,))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    pool.shutdown()


_prepared: list[tuple[Grid, ImageData]] = []
"""In a worker, what all of its cells need."""


def _prepare(grid: Grid) -> None:
    torch.set_num_threads(1)
    _prepared.append((grid, datasets.load(grid.plan.data, image_size=grid.plan.image_size)))


def _in_worker(cell: Cell, folder: Path) -> Result:
    grid, images = _prepared[-1]
    with quiet():
        return _one(grid, cell, images, folder)


def _one(grid: Grid, cell: Cell, images: ImageData, folder: Path) -> Result:
    state = folder / STATE / _name(cell)
    result = fit_cell(grid, cell, images, state)
    write_whole(_path(folder, cell), json.dumps(to_json(result), indent=1) + "\n")
    shutil.rmtree(state, ignore_errors=True)
    return result


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _name(cell: Cell) -> str:
    budget = re.sub(r"[^\w.]+", "", cell.budget) or "own"
    return f"{cell.method}-{cell.members}-{budget}-seed{cell.seed}"


def _path(folder: Path, cell: Cell) -> Path:
    return folder / CELLS / f"{_name(cell)}.json"


def _read(path: Path, cell: Cell) -> Result:
    try:
        result = from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError, ArtefactError) as error:
        raise ArtefactError(f"{path} is damaged ({error}): delete it to run that cell again") from error
    if result.cell != cell:
        raise ArtefactError(f"{path} holds another cell, {result.cell}: delete it to run that cell again")
    return result


class _Told:
    """What the progress bar says: the last cell, and how long the rest should take."""

    def __init__(self, shown: Bar, done: Sequence[Result], waiting: Sequence[Cell], jobs: int) -> None:
        self.shown, self.waiting, self.jobs = shown, list(waiting), jobs
        self.seconds: dict[str, list[float]] = defaultdict(list)
        for result in done:
            self._learn(result)

    def add(self, result: Result) -> None:
        """One more is done."""
        self.waiting.remove(result.cell)
        self._learn(result)
        self.shown.advance()
        self.note(f"{_name(result.cell)}{' FAILED' if result.error else ''}")

    def note(self, last: str = "") -> None:
        """Show it."""
        known = [seconds for many in self.seconds.values() for seconds in many]
        if not known:
            return
        left = sum(fmean(self.seconds.get(cell.method) or known) for cell in self.waiting) / self.jobs
        self.shown.note(" · ".join(part for part in (last, f"about {left / 60:.0f} min left") if part))

    def _learn(self, result: Result) -> None:
        if "seconds" in result.values:
            self.seconds[result.cell.method].append(result.values["seconds"])
