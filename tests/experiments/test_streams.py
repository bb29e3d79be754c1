"""The grid of streams: which cells it has, what it refuses, what becomes of one, and what a second run does."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from structured_ensembles.continual.results.records import StreamCell, StreamRun
from structured_ensembles.continual.strategies.naive import Naive
from structured_ensembles.data import sources as datasets
from structured_ensembles.errors import ArtefactError, DataError, NetworkError, SettingsError
from structured_ensembles.experiments import streams
from structured_ensembles.experiments.streams import (
    cells,
    learn_cell,
    load,
    network,
    stream,
    work,
    write_page,
    write_pictures,
    write_tables,
)
from structured_ensembles.options.catalogue import STRATEGIES
from structured_ensembles.options.choices import StreamKind
from structured_ensembles.options.plans import StreamGrid, StreamPlan
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.streams import settings

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from structured_ensembles.continual.learner.tasks import Task
    from structured_ensembles.data.sources import ImageData

SETTINGS = replace(
    settings(), training=replace(settings().training, epochs=1), search=SearchSettings(epochs=1, max_steps=1)
)
PLAN = StreamPlan(tasks=2, architecture="mlp", arguments={"width": 8}, settings=SETTINGS)
GRID = StreamGrid(PLAN, ("structured", "single_task", "naive"), (0, 1))
TABLES = {"results.csv", "results.json", "steps.csv", "accuracies.csv", "summary.md"}


@pytest.fixture(scope="module")
def digits() -> list[ImageData]:
    """A third of the digits."""
    whole = load(PLAN)[0]
    train, test = (datasets.Split(split.images[::3], split.labels[::3]) for split in (whole.train, whole.test))
    return [replace(whole, train=train, test=test)]


class Fake:
    """Stands in for `learn_cell`: quick, and remembers its cells."""

    def __init__(self) -> None:
        self.cells: list[StreamCell] = []
        self.failing: set[StreamCell] = set()
        self.interrupted: StreamCell | None = None

    def __call__(self, _grid: StreamGrid, cell: StreamCell, _sources: object, state: Path) -> StreamRun:
        self.cells.append(cell)
        state.mkdir(parents=True, exist_ok=True)
        if cell == self.interrupted:
            raise KeyboardInterrupt
        return StreamRun(cell, "it broke") if cell in self.failing else self.finished(cell)

    def finished(self, cell: StreamCell) -> StreamRun:
        return streams.from_json({**FINISHED, "cell": {"strategy": cell.strategy, "seed": cell.seed}})


_MEMORY = {"shared": 9, "normalisation": 0, "masks": 0, "heads": 1, "data": 0}
_STEP = {"seconds": 1.0, "memory": _MEMORY, "marginal_bytes": 5, "capacity": None}
FINISHED = {
    "error": None,
    "owners": None,
    "notices": [],
    "proved": False,
    "untold": None,
    "steps": [{**_STEP, "task": "a", "accuracies": [0.5, None]}, {**_STEP, "task": "b", "accuracies": [0.5, 0.75]}],
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    stand_in = Fake()
    monkeypatch.setattr(streams, "learn_cell", stand_in)
    return stand_in


# --- the grid ---------------------------------------------------------------------------------------------------------


def test_cells_come_seed_by_seed() -> None:
    grid = StreamGrid(PLAN, ("naive", "hat"), (7, 3))
    assert [(cell.seed, cell.strategy) for cell in cells(grid)] == [(7, "naive"), (7, "hat"), (3, "naive"), (3, "hat")]
    assert len({cell.name for cell in cells(StreamGrid(PLAN, seeds=(1, 11)))}) == 2 * len(STRATEGIES)


def tasks_of(plan: StreamPlan, sources: list[ImageData], seed: int = 0) -> list[Task]:
    return stream(plan, sources, seed)


def test_each_kind_makes_its_tasks(digits: list[ImageData]) -> None:
    assert [task.name for task in tasks_of(PLAN, digits)] == ["0 ... 4", "5 ... 9"]
    assert [task.name for task in tasks_of(replace(PLAN, kind=StreamKind.PERMUTED), digits)][1] == "permutation 1"
    assert [task.name for task in tasks_of(replace(PLAN, kind=StreamKind.ROTATED), digits)][1] == "180 degrees"


def test_several_sources_are_a_task_each(digits: list[ImageData]) -> None:
    other = replace(digits[0], name="inverted", train=inverted(digits[0].train), test=inverted(digits[0].test))
    plan = replace(PLAN, sources=("digits", "other"), tasks=5)
    assert [task.name for task in tasks_of(plan, [*digits, other])] == [digits[0].name, "inverted"]
    with pytest.raises(DataError, match="has the training images of task"):
        tasks_of(plan, digits * 2)


def inverted(split: datasets.Split) -> datasets.Split:
    return datasets.Split(1 - split.images, split.labels)


def test_more_tasks_than_classes_allow_are_refused(digits: list[ImageData]) -> None:
    with pytest.raises(SettingsError, match=r"10 classes do not make 6 tasks.*ask for 5 tasks or fewer"):
        stream(replace(PLAN, tasks=6), digits, 0)


def test_the_backbone_knows_the_first_task_only(digits: list[ImageData]) -> None:
    first, second = tasks_of(PLAN, digits)
    spec = network(PLAN, first)
    assert spec.mean == datasets.mean_and_std(first.train)[0] != datasets.mean_and_std(second.train)[0]
    with pytest.raises(SettingsError, match="did you mean 'mlp'"):
        network(replace(PLAN, architecture="mlpp"), first)


# --- one cell ---------------------------------------------------------------------------------------------------------


def test_a_structured_cell_says_who_owns_what_and_that_nothing_changed(digits: list[ImageData]) -> None:
    run = learn_cell(GRID, StreamCell("structured", 0), digits)
    assert run.error is None
    assert run.proved
    assert run.owners is not None
    assert {task for owner in run.owners.values() for task in owner} == {-1, 0, 1}
    assert run.result is not None
    assert [step.task for step in run.result.steps] == ["0 ... 4", "5 ... 9"]
    assert run.untold is not None
    assert run.untold.told == pytest.approx(sum(run.result.steps[-1].accuracies) / 2)
    assert run.result.accuracies[0][0] == run.result.accuracies[1][0]
    assert run.seconds is not None


def test_a_structured_cell_that_was_written_into_is_not_proved(
    digits: list[ImageData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.Structured, "_network", spoiled(streams.Structured._network))
    run = learn_cell(GRID, StreamCell("structured", 0), digits)
    assert not run.proved
    assert any("has changed" in notice or "differ" in notice for notice in run.notices)


def spoiled(network_of: object):
    """Measuring changes a bias of the first task."""

    def network(self: streams.Structured, task: int) -> nn.Module:
        next(value for name, value in self.learner.state.backbone.named_parameters() if "bias" in name).data.add_(1)
        return network_of(self, task)  # type: ignore[operator]

    return network


def test_equal_shares_are_of_the_tasks_that_there_are(digits: list[ImageData]) -> None:
    plan = replace(PLAN, settings=replace(SETTINGS, capacity="equal", tasks=99))
    run = learn_cell(StreamGrid(plan, ("structured",)), StreamCell("structured", 0), digits)
    assert run.result is not None
    assert [list((step.capacity or {}).values()) for step in run.result.steps] == [[0.5, 0.5], [0, 0]]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NetworkError("layer 3 is\nattention: pass another backbone"), "layer 3 is attention: pass another backbone"),
        (RuntimeError("it\nbroke"), "failed with RuntimeError: it broke"),
    ],
)
def test_what_goes_wrong_is_the_result(
    error: Exception, message: str, digits: list[ImageData], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(Naive, "_learn", broken)
    assert learn_cell(GRID, StreamCell("naive", 0), digits) == StreamRun(StreamCell("naive", 0), message)


# --- many cells -------------------------------------------------------------------------------------------------------


def test_only_what_is_missing_or_failed_is_run_again(fake: Fake, digits: list[ImageData], tmp_path: Path) -> None:
    fake.failing = {StreamCell("naive", 0)}
    first = work(GRID).carry_out(digits, tmp_path)
    assert [run.cell for run in first] == fake.cells == cells(GRID)
    assert [run.error for run in first if run.error] == ["it broke"]
    assert not any((tmp_path / "state").iterdir())
    fake.failing, fake.cells = set(), []
    wider = replace(GRID, seeds=(0, 1, 2), strategies=("structured", "naive"))
    assert all(run.error is None for run in work(wider).carry_out(digits, tmp_path))
    assert fake.cells == [StreamCell("naive", 0), StreamCell("structured", 2), StreamCell("naive", 2)]
    assert [repr(run) for run in work(wider).results(tmp_path)] == [repr(fake.finished(cell)) for cell in cells(wider)]


def test_an_interrupt_keeps_what_is_finished_and_the_state(fake: Fake, digits: list[ImageData], tmp_path: Path) -> None:
    fake.interrupted = cells(GRID)[2]
    with pytest.raises(KeyboardInterrupt):
        work(GRID).carry_out(digits, tmp_path)
    assert [run.cell for run in work(GRID).results(tmp_path)] == cells(GRID)[:2]
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["naive-seed0"]


def test_a_damaged_result_and_other_images_are_refused(fake: Fake, digits: list[ImageData], tmp_path: Path) -> None:
    work(GRID).carry_out(digits, tmp_path)
    path = tmp_path / "cells" / "naive-seed0.json"
    for text, message in (("{", "is damaged"), ("{}", "is damaged")):
        path.write_text(text)
        with pytest.raises(ArtefactError, match=f"naive-seed0.json {message}.*delete it"):
            work(GRID).carry_out(digits, tmp_path)
    path.write_text((tmp_path / "cells" / "naive-seed1.json").read_text())
    with pytest.raises(ArtefactError, match="holds another cell"):
        work(GRID).results(tmp_path)
    fewer = replace(digits[0], train=datasets.Split(digits[0].train.images[1:], digits[0].train.labels[1:]))
    with pytest.raises(SettingsError, match="holds results on other images"):
        work(GRID).carry_out([fewer], tmp_path)


def test_a_stopped_cell_goes_on_to_the_same_numbers_without_its_time(
    digits: list[ImageData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = replace(GRID, strategies=("naive",), seeds=(0,))
    (whole,) = work(grid).carry_out(digits, tmp_path / "whole")
    learn = Naive._learn

    def stop(self: Naive, task: Task, directory: Path | None) -> None:
        if self.tasks:
            raise KeyboardInterrupt
        learn(self, task, directory)

    with monkeypatch.context() as patch:
        patch.setattr(Naive, "_learn", stop)
        with pytest.raises(KeyboardInterrupt):
            work(grid).carry_out(digits, tmp_path / "stopped")
    (run,) = work(grid).carry_out(digits, tmp_path / "stopped")
    assert whole.result is not None
    assert run.result is not None
    assert repr(run.result.accuracies) == repr(whole.result.accuracies)
    assert [math.isnan(step.seconds) for step in run.result.steps] == [True, False]
    assert run.seconds is None


@pytest.mark.slow  # a process that imports torch and Lightning
def test_results_do_not_depend_on_the_process_that_runs_them(tmp_path: Path) -> None:
    grid = replace(GRID, strategies=("naive",), seeds=(0,))
    (mine,), (other,) = (work(grid).carry_out(load(PLAN), tmp_path / str(jobs), jobs) for jobs in (1, 2))
    assert mine.error is None
    assert mine.result is not None
    assert other.result is not None
    assert repr(mine.result.accuracies) == repr(other.result.accuracies)


# --- tables and pictures ----------------------------------------------------------------------------------------------


def test_tables_pictures_and_the_page(fake: Fake, tmp_path: Path, digits: list[ImageData]) -> None:
    fake.failing = {StreamCell("naive", 1)}
    runs = [
        replace(run, owners={"0": [0, 1, -1]}, proved=True) if run.cell.strategy == "structured" else run
        for run in work(GRID).carry_out(digits, tmp_path)
    ]
    write_tables(runs, tmp_path)
    write_pictures(runs, tmp_path)
    write_page(runs, tmp_path, "digits", {"tasks": 2})
    assert {path.name for path in tmp_path.iterdir()} >= TABLES | {"accuracy.png", "memory.png", "owners.png"}
    assert [entry["error"] for entry in json.loads((tmp_path / "results.json").read_text())] == [None] * 5 + [
        "it broke"
    ]
    assert "naive, seed 1: it broke" in (tmp_path / "summary.md").read_text()
    assert "it broke" in (tmp_path / "stream.html").read_text()


def test_if_everything_failed_there_are_tables(fake: Fake, tmp_path: Path, digits: list[ImageData]) -> None:
    fake.failing = set(cells(GRID))
    runs = work(GRID).carry_out(digits, tmp_path)
    write_tables(runs, tmp_path)
    write_pictures(runs, tmp_path)
    write_page(runs, tmp_path, "digits", {})
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == TABLES | {"data.sha256"}
