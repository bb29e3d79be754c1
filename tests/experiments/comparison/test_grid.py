"""The grid: which cells it has, what it refuses, and what becomes of one cell."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from structured_ensembles import settings
from structured_ensembles.data import sources as datasets
from structured_ensembles.data.examples import Examples
from structured_ensembles.errors import SettingsError
from structured_ensembles.experiments.comparison.grid import cells, fit_cell
from structured_ensembles.experiments.comparison.records import Cell
from structured_ensembles.methods.fitting import Fittable
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.options.budget import Budget
from structured_ensembles.options.catalogue import METHODS
from structured_ensembles.options.choices import Log, Preset
from structured_ensembles.options.plans import ARMS, Grid, Plan

if TYPE_CHECKING:
    from structured_ensembles.options.training import TrainingSettings

BUDGETED = ("structured", "published", "shuffled", "random", "magnitude", "narrow", "narrow_sliced", "packed")


def plan(epochs: int = 1, **changes: object) -> Plan:
    training = replace(settings().training, epochs=epochs, **changes)
    return Plan(architecture="mlp", arguments={"width": 16}, settings=replace(settings(), training=training))


@pytest.fixture(scope="module")
def digits() -> datasets.ImageData:
    return datasets.load("digits")


# --- cells ----------------------------------------------------------------------------------------------------------


def test_cells_come_seed_by_seed_and_what_has_its_own_size_once() -> None:
    grid = Grid(plan(), ("single", "narrow", "deep"), (2, 4), ("1x", "2x"), (7, 3))
    expected = [
        Cell("single", 1, "", 7),
        *(Cell("narrow", 2, "1x", 7), Cell("deep", 2, "", 7), Cell("narrow", 2, "2x", 7)),
        *(Cell("narrow", 4, "1x", 7), Cell("deep", 4, "", 7), Cell("narrow", 4, "2x", 7)),
    ]
    assert cells(grid) == expected + [replace(cell, seed=3) for cell in expected]


def test_every_method_can_be_compared() -> None:
    assert set(ARMS) == {*METHODS, "published"}
    assert ARMS[:3] == ("single", "structured", "published")
    assert {cell.method for cell in cells(Grid(plan())) if cell.budget} == set(BUDGETED)


AXES = st.fixed_dictionaries(
    {
        "methods": st.lists(st.sampled_from(ARMS), min_size=1, unique=True).map(tuple),
        "members": st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True).map(tuple),
        "budgets": st.lists(
            st.sampled_from(("0.5x", "1x", "2x", "1x params", "2MB")), min_size=1, max_size=3, unique=True
        ).map(tuple),
        "seeds": st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True).map(tuple),
    }
)


@hypothesis_settings(max_examples=100)
@given(axes=AXES)
def test_every_cell_of_the_product_is_there_once(axes: dict[str, tuple]) -> None:
    found = cells(Grid(plan(), **axes))
    wanted = {
        Cell(name, 1 if name == "single" else count, budget if name in BUDGETED else "", seed)
        for name in axes["methods"]
        for count in axes["members"]
        for budget in axes["budgets"]
        for seed in axes["seeds"]
    }
    assert len(found) == len(wanted)
    assert set(found) == wanted
    places = [axes["seeds"].index(cell.seed) for cell in found]
    assert places == sorted(places)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"methods": ("narow",)}, "unknown method 'narow': did you mean 'narrow'"),
        ({"methods": ("single", "single")}, "methods must be at least one, and none twice"),
        ({"methods": ()}, "methods must be at least one"),
        ({"members": (4, 0)}, "members 0 must be at least 1"),
        ({"members": ()}, "members must be at least one"),
        ({"members": (2, 2)}, "members .* none twice"),
        ({"budgets": ()}, "budgets must be at least one"),
        ({"budgets": ("1x", "lots")}, "budget 'lots' is not understood"),
        ({"budgets": ("1x", "1.0 X")}, "budgets .* none twice"),
        ({"budgets": ("2MB", "2000 kB")}, "budgets .* none twice"),
        ({"seeds": ()}, "seeds must be at least one"),
        ({"seeds": (1, -3)}, "seed -3 must be at least 0"),
        ({"seeds": (1, 2, 1)}, "seeds .* none twice"),
    ],
)
def test_wrong_axes_are_refused(axes: dict[str, tuple], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Grid(plan(), **axes)


# --- one cell -------------------------------------------------------------------------------------------------------


def settings_in(grid: Grid, cell: Cell, images: datasets.ImageData, monkeypatch: pytest.MonkeyPatch):
    """Of the method that a cell would fit."""
    seen: list[Fittable] = []

    def fit(self: Fittable, *_: object, **__: object) -> Fittable:
        seen.append(self)
        raise SettingsError("enough")

    monkeypatch.setattr(Fittable, "fit", fit)
    assert fit_cell(grid, cell, images).error == "enough"
    return seen[0]


def quiet(grid: Grid) -> TrainingSettings:
    """Logs would go with the state of a cell: none are written."""
    return replace(grid.plan.settings.training, log=Log.NONE)


def test_the_published_arm_differs_in_all_but_training_split_and_budget(
    digits: datasets.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = replace(plan().settings, held_out=0.3, budget=Budget.parse("7x"))
    grid = Grid(replace(plan(learning_rate=0.02), settings=replace(common, training=plan(5).settings.training)))
    found = settings_in(grid, Cell("published", 3, "2x params", 0), digits, monkeypatch)
    published = settings(Preset.PUBLISHED)
    assert type(found) is METHODS["structured"]
    assert found.count == 3
    assert found.settings == replace(published, training=quiet(grid), held_out=0.3, budget=Budget.parse("2x params"))
    assert found.settings.search == published.search != grid.plan.settings.search
    assert found.settings.combine == published.combine != grid.plan.settings.combine


@pytest.mark.parametrize(("method", "budget"), [("structured", "0.5x"), ("narrow", "2MB"), ("deep", "")])
def test_other_arms_have_the_plans_settings(
    method: str, budget: str, digits: datasets.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Grid(plan(5))
    found = settings_in(grid, Cell(method, 3, budget, 0), digits, monkeypatch)
    assert type(found) is METHODS[method]
    expected = replace(grid.plan.settings, training=quiet(grid))
    assert found.settings == replace(expected, budget=Budget.parse(budget) if budget else None)
    assert found.spec.mean is not None  # every arm normalises its pixels alike


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SettingsError("a budget\n  of 3   is impossible"), "a budget of 3 is impossible"),
        (RuntimeError("out\nof memory"), "failed with RuntimeError: out of memory"),
        (ZeroDivisionError(), "failed with ZeroDivisionError:"),
    ],
)
def test_what_fails_is_a_result_on_one_line(
    error: Exception, message: str, digits: datasets.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> None:
        raise error

    monkeypatch.setattr(SingleNetwork, "build", build)
    cell = Cell("single", 1, "", 0)
    result = fit_cell(Grid(plan()), cell, digits)
    assert (result.cell, result.error, result.values) == (cell, message, {})


def test_an_interrupt_is_no_result(digits: datasets.ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SingleNetwork, "build", build)
    with pytest.raises(KeyboardInterrupt):
        fit_cell(Grid(plan()), Cell("single", 1, "", 0), digits)


def test_a_budget_that_cannot_be_met_says_what_could(digits: datasets.ImageData) -> None:
    result = fit_cell(Grid(plan()), Cell("narrow", 2, "100 bytes", 0), digits)
    assert "a budget of 100 bytes is impossible for 2 members" in result.error
    assert "smallest possible ensemble costs" in result.error


def test_everything_is_measured(digits: datasets.ImageData) -> None:
    single, narrow = (
        fit_cell(Grid(plan()), cell, digits) for cell in (Cell("single", 1, "", 0), Cell("narrow", 2, "1x", 0))
    )
    quality = {"accuracy", "nll", "ece", "brier", "disagreement", "mutual_information"}
    costs = {"parameters", "buffers", "bytes_on_disk", "flops", "training_flops", "seconds"}
    for result in (single, narrow):
        assert result.error is None
        assert quality | costs <= result.values.keys()
        assert 0 < result.values["accuracy"] <= 1
        assert all(math.isfinite(value) for value in result.values.values())
    assert narrow.values["bytes_on_disk"] <= single.values["bytes_on_disk"]
    assert single.values["parameters"] == 64 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
    assert single.values["disagreement"] == 0 < narrow.values["disagreement"]


def test_training_costs_three_passes_of_every_example_in_every_epoch(digits: datasets.ImageData) -> None:
    values = fit_cell(Grid(plan(epochs=3)), Cell("single", 1, "", 0), digits).values
    assert values["flops"] == 2 * (64 * 16 + 16 * 16 + 16 * 10)
    learned, _ = Examples.of(digits.train).split(settings().held_out, 0)
    assert values["training_flops"] == 3 * values["flops"] * len(learned) * 3


def test_the_seed_of_a_cell_decides(digits: datasets.ImageData) -> None:
    grid = Grid(plan())
    first, other, again = (fit_cell(grid, Cell("single", 1, "", seed), digits).values for seed in (0, 1, 0))
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert first["nll"] != other["nll"]


def test_of_a_fit_that_goes_on_the_time_is_not_known(digits: datasets.ImageData, tmp_path) -> None:
    state = tmp_path / "state"
    cell = Cell("single", 1, "", 0)
    first, second = (fit_cell(Grid(plan()), cell, digits, state).values for _ in range(2))
    assert "seconds" in first
    assert second == {name: value for name, value in first.items() if name != "seconds"}
