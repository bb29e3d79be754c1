"""Run the grid of a comparison: every cell that has no result yet, then the tables."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from structured_ensembles.data import digests
from structured_ensembles.data import sources as datasets
from structured_ensembles.errors import DataError
from structured_ensembles.experiments import grids
from structured_ensembles.experiments.comparison.grid import Grid, cells, fit_cell
from structured_ensembles.experiments.comparison.records import Cell, Result, from_json, tidy_csv, to_json
from structured_ensembles.experiments.comparison.tables import markdown
from structured_ensembles.experiments.grids import CELLS, STATE
from structured_ensembles.files import marks
from structured_ensembles.files.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from structured_ensembles.data.sources import ImageData


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
    here, there = partial(_one, grid, images, folder), partial(_prepared, grid, folder)
    grids.fill(cells(grid), results(grid, folder), here, there, jobs, "comparing")
    return results(grid, folder)


def claim(folder: Path, *sources: ImageData) -> None:
    """Refuse a folder whose results come from other images, or make it theirs.

    Raises:
        SettingsError: It is not theirs.
    """
    splits = [split for images in sources for split in (images.train, images.test)]
    found = digests.fingerprint([datasets.as_dataset(split) for split in splits])
    marks.claim(folder, found, f"{folder} holds results on other images: choose another folder")


def results(grid: Grid, folder: Path) -> list[Result]:
    """What is known of the grid's cells, in their order.

    Raises:
        ArtefactError: A file is damaged.
    """
    return grids.read(folder, cells(grid), from_json)


def write_tables(grid: Grid, images: ImageData, found: Sequence[Result], folder: Path) -> None:
    """Write the table of all runs (CSV and JSON), their summary (Markdown), and pictures of what there is to draw."""
    from structured_ensembles.experiments.comparison.pictures import cost_front, diversity, training_cost

    plan = grid.plan
    common = {"data": images.name, "architecture": plan.architecture, "epochs": plan.settings.training.epochs}
    write_whole(folder / "results.csv", tidy_csv(found, common))
    write_whole(folder / "results.json", json.dumps([to_json(result) for result in found], indent=1) + "\n")
    about = ", ".join(f"{name} {value}" for name, value in common.items())
    write_whole(folder / "summary.md", f"## Comparison: {about}\n\n{markdown(found)}")
    for draw, name in ((cost_front, "cost.png"), (training_cost, "training_cost.png"), (diversity, "diversity.png")):
        with suppress(DataError):  # nothing to draw: all runs failed, or none has several members to disagree
            draw(found, folder / name)


def _prepared(grid: Grid, folder: Path) -> Callable[[Cell], Result]:
    """In a process that has read nothing yet, what runs a cell."""
    return partial(_one, grid, datasets.load(grid.plan.data, image_size=grid.plan.image_size), folder)


def _one(grid: Grid, images: ImageData, folder: Path, cell: Cell) -> Result:
    state = folder / STATE / cell.name
    result = fit_cell(grid, cell, images, state)
    grids.write(folder, result, to_json(result))
    shutil.rmtree(state, ignore_errors=True)
    return result
