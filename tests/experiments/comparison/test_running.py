"""Many cells: each written down when it is done, and what a second run does about the rest."""

from __future__ import annotations

import csv
import json
import multiprocessing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from structured_ensembles import settings
from structured_ensembles.data import sources as datasets
from structured_ensembles.errors import ArtefactError, SettingsError
from structured_ensembles.execution import local
from structured_ensembles.experiments.comparison import grid as grid_module
from structured_ensembles.experiments.comparison.grid import cells, work
from structured_ensembles.experiments.comparison.records import Cell, Result
from structured_ensembles.experiments.comparison.writing import write_tables
from structured_ensembles.methods.fitting import Fittable
from structured_ensembles.options.plans import Grid, Plan

if TYPE_CHECKING:
    from pathlib import Path

    from structured_ensembles.data.sources import ImageData

TRAINING = replace(settings().training, epochs=2)
PLAN = Plan(architecture="mlp", arguments={"width": 8}, settings=replace(settings(), training=TRAINING))
GRID = Grid(PLAN, ("single", "narrow", "deep"), (2,), ("1x",), (0, 1))
PICTURES = {"cost.png", "training_cost.png", "diversity.png"}


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return datasets.load("digits")


class Fake:
    """Stands in for `fit_cell`: quick, and remembers its cells and whether each had a state to go on from."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self.resumed: list[bool] = []
        self.failing: set[Cell] = set()
        self.interrupted: Cell | None = None

    def __call__(self, _grid: Grid, cell: Cell, _images: ImageData, state: Path) -> Result:
        self.cells.append(cell)
        self.resumed.append(state.exists())
        state.mkdir(parents=True, exist_ok=True)
        (state / "training.ckpt").touch()
        if cell == self.interrupted:
            raise KeyboardInterrupt
        if cell in self.failing:
            return Result(cell, "it broke")
        names = ("accuracy", "nll", "ece", "brier", "disagreement", "bytes_on_disk", "flops", "training_flops")
        return Result(cell, None, dict.fromkeys(names, (cell.seed + 1) / (9 + cell.members)) | {"seconds": 1.0})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    stand_in = Fake()
    monkeypatch.setattr(grid_module, "fit_cell", stand_in)
    return stand_in


def files(folder: Path) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in (folder / "cells").iterdir()}


# --- one after the other ----------------------------------------------------------------------------------------------


def test_every_cell_is_written_down_and_its_state_cleared(fake: Fake, digits: ImageData, tmp_path: Path) -> None:
    found = work(GRID).carry_out(digits, tmp_path / "new" / "folder")
    assert fake.cells == [result.cell for result in found] == cells(GRID)
    assert found == work(GRID).results(tmp_path / "new" / "folder")
    written = files(tmp_path / "new" / "folder")
    assert len(written) == len(cells(GRID)) == 6
    assert written["narrow-2-1x-seed1.json"]["cell"] == {"method": "narrow", "members": 2, "budget": "1x", "seed": 1}
    assert written["narrow-2-1x-seed1.json"]["values"]["accuracy"] == 2 / 11
    assert not any((tmp_path / "new" / "folder" / "state").iterdir())


def test_only_what_is_missing_or_failed_is_run_again(fake: Fake, digits: ImageData, tmp_path: Path) -> None:
    fake.failing = {Cell("deep", 2, "", 0), Cell("narrow", 2, "1x", 1)}
    first = work(GRID).carry_out(digits, tmp_path)
    assert {result.cell for result in first if result.error == "it broke"} == fake.failing
    assert len(first) == 6
    (tmp_path / "cells" / "single-1-own-seed1.json").unlink()
    wanted, fake.cells, fake.resumed = [*fake.failing, Cell("single", 1, "", 1)], [], []
    fake.failing = {Cell("deep", 2, "", 0)}
    second = work(GRID).carry_out(digits, tmp_path)
    assert fake.cells == [cell for cell in cells(GRID) if cell in wanted]
    assert fake.resumed == [False] * 3  # what failed starts afresh
    assert [result.cell for result in second] == cells(GRID)
    assert {result.cell for result in second if result.error} == fake.failing
    fake.failing, fake.cells = set(), []
    work(GRID).carry_out(digits, tmp_path)
    assert fake.cells == [Cell("deep", 2, "", 0)]
    work(GRID).carry_out(digits, tmp_path)
    assert fake.cells == [Cell("deep", 2, "", 0)]


def test_a_wider_grid_runs_what_is_new(fake: Fake, digits: ImageData, tmp_path: Path) -> None:
    work(GRID).carry_out(digits, tmp_path)
    fake.cells = []
    wider = replace(GRID, seeds=(0, 1, 2))
    assert [result.cell for result in work(wider).carry_out(digits, tmp_path)] == cells(wider)
    assert {cell.seed for cell in fake.cells} == {2}


def test_an_interrupt_keeps_what_is_finished_and_the_state(fake: Fake, digits: ImageData, tmp_path: Path) -> None:
    fake.interrupted = cells(GRID)[3]
    with pytest.raises(KeyboardInterrupt):
        work(GRID).carry_out(digits, tmp_path)
    assert [result.cell for result in work(GRID).results(tmp_path)] == cells(GRID)[:3]
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["single-1-own-seed1"]
    fake.interrupted, fake.cells, fake.resumed = None, [], []
    work(GRID).carry_out(digits, tmp_path)
    assert fake.cells == cells(GRID)[3:]
    assert fake.resumed == [True, False, False]


def test_threads_are_as_they_were(fake: Fake, digits: ImageData, tmp_path: Path, monkeypatch) -> None:
    during: list[int] = []

    def counted(_grid: Grid, cell: Cell, *_: object) -> Result:
        during.append(torch.get_num_threads())
        return Result(cell, "no")

    monkeypatch.setattr(grid_module, "fit_cell", counted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        work(GRID).carry_out(digits, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert during == [1] * 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"narrow-2-1x-seed0.json is damaged .*: delete it to run that cell again"),
        ("[]", "is damaged"),
        ('{"cell": 3, "error": null, "values": {}}', "is damaged"),
        ("\x00\xff", "is damaged"),
    ],
)
def test_a_damaged_result_says_which_file(
    content: str, message: str, fake: Fake, digits: ImageData, tmp_path: Path
) -> None:
    work(GRID).carry_out(digits, tmp_path)
    path = tmp_path / "cells" / "narrow-2-1x-seed0.json"
    path.write_text(content, encoding="latin-1")
    fake.cells = []
    for act in (lambda: work(GRID).results(tmp_path), lambda: work(GRID).carry_out(digits, tmp_path)):
        with pytest.raises(ArtefactError, match=message):
            act()
    path.unlink()
    work(GRID).carry_out(digits, tmp_path)
    assert fake.cells == [Cell("narrow", 2, "1x", 0)]


def test_a_result_of_another_cell_is_refused(fake: Fake, digits: ImageData, tmp_path: Path) -> None:
    work(GRID).carry_out(digits, tmp_path)
    folder = tmp_path / "cells"
    (folder / "narrow-2-1x-seed0.json").write_text((folder / "narrow-2-1x-seed1.json").read_text())
    with pytest.raises(ArtefactError, match="holds another cell"):
        work(GRID).results(tmp_path)


def test_no_two_cells_share_a_file(fake: Fake, digits: ImageData, tmp_path: Path) -> None:
    wide = Grid(
        PLAN, members=(1, 2, 12), budgets=("1x", "0.5x", ".25x params", "1x flops", "2 MB", "2MFLOPs"), seeds=(1, 11)
    )
    assert len(work(wide).carry_out(digits, tmp_path)) == len(cells(wide)) == len(files(tmp_path))


# --- for real ---------------------------------------------------------------------------------------------------------

SMALL = Grid(PLAN, ("single", "narrow"), (2,), ("1x",), (0,))


@pytest.mark.slow  # two processes that import torch and Lightning
def test_results_do_not_depend_on_how_many_run_at_once(digits: ImageData, tmp_path: Path) -> None:
    folders = {jobs: tmp_path / str(jobs) for jobs in (1, 2)}
    one, two = (work(SMALL).carry_out(digits, folder, jobs) for jobs, folder in folders.items())
    assert [result.error for result in one] == [None, None]
    for mine, other in zip(one, two, strict=True):
        assert mine.cell == other.cell
        assert {**mine.values, "seconds": 0} == {**other.values, "seconds": 0}
    assert files(folders[1]).keys() == files(folders[2]).keys()


def test_a_real_fit_that_is_stopped_goes_on_to_the_same_values(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = replace(SMALL, methods=("narrow",))
    whole = work(grid).carry_out(digits, tmp_path / "whole")[0].values
    train_member = Fittable.train_member

    def stop(self: Fittable, network: object, fold: object, member: int, *rest: object) -> object:
        if member == 1:
            raise KeyboardInterrupt
        return train_member(self, network, fold, member, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Fittable, "train_member", stop)
        with pytest.raises(KeyboardInterrupt):
            work(grid).carry_out(digits, tmp_path / "stopped")
    assert work(grid).results(tmp_path / "stopped") == []
    values = work(grid).carry_out(digits, tmp_path / "stopped")[0].values
    assert values == {name: value for name, value in whole.items() if name != "seconds"}


def test_a_killed_process_says_how_to_go_on(digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = multiprocessing.active_children()
    as_completed = local.as_completed

    def killing(futures: object):
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        return as_completed(futures)

    monkeypatch.setattr(local, "as_completed", killing)
    with pytest.raises(SettingsError, match=r"a process was killed.*\(--jobs 1\)"):
        work(SMALL).carry_out(digits, tmp_path, jobs=2)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_tables_and_pictures(fake: Fake, digits: ImageData, tmp_path: Path) -> None:
    fake.failing = {Cell("deep", 2, "", 1)}
    found = work(GRID).carry_out(digits, tmp_path)
    write_tables(GRID, digits, found, tmp_path)
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [(row["method"], row["seed"]) for row in rows] == [(r.cell.method, str(r.cell.seed)) for r in found]
    assert [row["error"] for row in rows] == ["it broke" if r.cell in fake.failing else "" for r in found]
    assert json.loads((tmp_path / "results.json").read_text())[0]["cell"]["method"] == "single"
    assert "deep, 2 members, seed 1: it broke" in (tmp_path / "summary.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} >= PICTURES


def test_tables_are_written_even_if_everything_failed(fake: Fake, digits: ImageData, tmp_path: Path) -> None:
    fake.failing = set(cells(GRID))
    write_tables(GRID, digits, work(GRID).carry_out(digits, tmp_path), tmp_path)
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + 6
    assert "it broke" in (tmp_path / "summary.md").read_text()
    assert not PICTURES & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("cell", "missing"), [(0, {"diversity.png"}), (1, set())])
def test_one_success_is_enough_for_pictures(
    cell: int, missing: set[str], fake: Fake, digits: ImageData, tmp_path: Path
) -> None:
    fake.failing = {other for other in cells(GRID) if other != cells(GRID)[cell]}
    write_tables(GRID, digits, work(GRID).carry_out(digits, tmp_path), tmp_path)
    # One network has no members that could disagree.
    assert PICTURES & {path.name for path in tmp_path.iterdir()} == PICTURES - missing
