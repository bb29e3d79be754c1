"""The grid of a comparison: every method, number of members, budget and seed, each cell a run of its own.

All cells of a seed see the same images, split, epochs, schedule and initialisation scheme; only what defines a method
differs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from structured_ensembles.data import sources as datasets
from structured_ensembles.errors import SettingsError, StructensError, unknown
from structured_ensembles.evaluation import ece, measure, nll
from structured_ensembles.evaluation.answers import answer
from structured_ensembles.evaluation.cost import cost
from structured_ensembles.experiments import run
from structured_ensembles.experiments.comparison.records import Cell, Result
from structured_ensembles.experiments.grids import check_axis
from structured_ensembles.methods import METHODS, SingleNetwork, StructuredEnsemble, make
from structured_ensembles.networks import family
from structured_ensembles.options.budget import Budget
from structured_ensembles.options.choices import Log, Preset
from structured_ensembles.options.presets import settings
from structured_ensembles.prediction.uncertainty import disagreement
from structured_ensembles.seeding import machine

if TYPE_CHECKING:
    from pathlib import Path

    from structured_ensembles.data.sources import ImageData
    from structured_ensembles.experiments.run import Plan
    from structured_ensembles.methods.fitting import Fittable
    from structured_ensembles.options.ensemble import Settings
    from structured_ensembles.types import Prediction

PUBLISHED = "published"
"""The arm of the structured method with the published settings of everything but training."""
ARMS = (
    SingleNetwork.method,
    StructuredEnsemble.method,
    PUBLISHED,
    *(n for n in METHODS if n not in ("single", "structured")),
)
"""What can be compared, in the order of tables."""


@dataclass(frozen=True)
class Grid:
    """What is compared.

    Attributes:
        plan: Data, architecture and settings of all cells; its members, budget and seed are replaced in each.
        methods: Of `ARMS`.
        members: Every M.
        budgets: Every budget, for methods that follow one.
        seeds: Every seed.

    Raises:
        SettingsError: An axis is empty, or holds something unknown or twice.
    """

    plan: Plan
    methods: tuple[str, ...] = ARMS
    members: tuple[int, ...] = (4,)
    budgets: tuple[str, ...] = ("1x",)
    seeds: tuple[int, ...] = field(default=tuple(range(5)))

    def __post_init__(self) -> None:
        if {StructuredEnsemble.method, PUBLISHED} <= {*self.methods} and PUBLISHED not in arms(self.plan):
            raise SettingsError("with these settings structured and published are one method: leave one of them out")
        for name in self.methods:
            if name not in ARMS:
                raise unknown("method", name, ARMS)
        if wrong := [count for count in self.members if count < 1]:
            raise SettingsError(f"members {wrong[0]} must be at least 1")
        if wrong := [seed for seed in self.seeds if seed < 0]:
            raise SettingsError(f"seed {wrong[0]} must be at least 0")
        for name in ("methods", "members", "seeds"):
            check_axis(name, getattr(self, name))
        check_axis("budgets", [Budget.parse(budget) for budget in self.budgets], self.budgets)


def arms(plan: Plan) -> tuple[str, ...]:
    """What can be compared under a plan: `ARMS`, without the published one where the settings are those anyway."""
    one, other = (_settings(plan, Cell(name, 1, "", 0)) for name in (StructuredEnsemble.method, PUBLISHED))
    return tuple(name for name in ARMS if name != PUBLISHED or one != other)


def cells(grid: Grid) -> list[Cell]:
    """Every run of the grid, seed by seed, so that a part of the grid already compares."""
    found: dict[Cell, None] = {}
    for seed, members, budget, name in itertools.product(grid.seeds, grid.members, grid.budgets, grid.methods):
        kind = _kind(name)
        own = 1 if kind is SingleNetwork else members
        found[Cell(name, own, budget if kind.budgeted else "", seed)] = None
    return list(found)


def fit_cell(grid: Grid, cell: Cell, images: ImageData, state: Path | None = None) -> Result:
    """Fit and measure one cell; what goes wrong is its result, and stops nobody else.

    Args:
        grid: Of which it is one.
        cell: Which one.
        images: What to learn from and to measure on.
        state: Where to keep what a stopped fit goes on from.
    """
    try:
        return Result(cell, None, _measured(grid, cell, images, state), machine())
    except StructensError as error:
        return Result(cell, " ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 (the other cells of a night's work must not be lost)
        return Result(cell, " ".join(f"failed with {type(error).__name__}: {error}".split()))


def _measured(grid: Grid, cell: Cell, images: ImageData, state: Path | None) -> dict[str, float]:
    name = StructuredEnsemble.method if cell.method == PUBLISHED else cell.method
    contestant = make(name, run.network(grid.plan, images), cell.members, _settings(grid.plan, cell))
    resumed = state is not None and state.exists()
    pixels: Any = datasets.as_dataset(images.train)
    contestant.fit(pixels, classes=images.classes, seed=cell.seed, directory=state)
    prediction = answer(contestant, images.test.images)
    values = _values(prediction, images) | _calibrated(contestant.calibrated(prediction), images) | _costs(contestant)
    return values if resumed else {**values, "seconds": contestant.seconds}


def _kind(name: str) -> type[Fittable]:
    return METHODS[StructuredEnsemble.method if name == PUBLISHED else name]


def _settings(plan: Plan, cell: Cell) -> Settings:
    """The plan's; for the published arm the published ones, but training and split, which are the same for all."""
    quiet = replace(plan.settings.training, log=Log.NONE)  # logs would go with the state
    common = replace(plan.settings, budget=Budget.parse(cell.budget) if cell.budget else None, training=quiet)
    if cell.method != PUBLISHED:
        return common
    published = settings(Preset.PUBLISHED, family(plan.architecture))
    return replace(published, budget=common.budget, training=common.training, held_out=common.held_out)


def _values(prediction: Prediction, images: ImageData) -> dict[str, float]:
    metrics = measure(prediction.probabilities, images.test.labels).to_json()
    return {name: value for name, value in metrics.items() if value is not None} | {
        "disagreement": float(disagreement(prediction.votes).mean()),
        "mutual_information": float(prediction.mutual_information.mean()),
    }


def _calibrated(prediction: Prediction, images: ImageData) -> dict[str, float]:
    """What the temperature that held-out images chose makes of it."""
    labels = images.test.labels
    return {
        "nll_calibrated": nll(prediction.probabilities, labels),
        "ece_calibrated": ece(prediction.probabilities, labels),
    }


def _costs(contestant: Fittable) -> dict[str, float]:
    found = cost(contestant)
    return {
        "parameters": found.parameters,
        "buffers": found.buffers,
        "bytes_on_disk": found.bytes_on_disk,
        "flops": found.flops,
        "training_flops": contestant.training_flops,
    }
