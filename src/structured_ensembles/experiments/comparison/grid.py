"""The grid of a comparison: every method, number of members, budget and seed, each cell a run of its own.

All cells of a seed see the same images, split, epochs, schedule and initialisation scheme; only what defines a method
differs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from structured_ensembles.data import sources as datasets
from structured_ensembles.data.sources import ImageData
from structured_ensembles.evaluation.answers import ask_about
from structured_ensembles.evaluation.cost import as_json
from structured_ensembles.evaluation.entry import plain
from structured_ensembles.evaluation.metrics import ece, measure, nll
from structured_ensembles.experiments import run
from structured_ensembles.experiments.comparison.records import Cell, Result, from_json, to_json
from structured_ensembles.experiments.grids import Work, attempted
from structured_ensembles.methods import make
from structured_ensembles.methods.fitting import Fittable
from structured_ensembles.options.catalogue import METHODS
from structured_ensembles.options.plans import PUBLISHED, Grid, settings_of
from structured_ensembles.prediction.uncertainty import disagreement
from structured_ensembles.seeding import machine
from structured_ensembles.types import Prediction


def work(grid: Grid) -> Work[Cell, Result]:
    """Everything that the grid asks for."""
    load = partial(datasets.load, grid.plan.data, image_size=grid.plan.image_size)
    return Work(cells(grid), load, partial(fit_cell, grid), to_json, from_json, "comparing")


def cells(grid: Grid) -> list[Cell]:
    """Every run of the grid, seed by seed, so that a part of the grid already compares."""
    found: dict[Cell, None] = {}
    for seed, members, budget, name in itertools.product(grid.seeds, grid.members, grid.budgets, grid.methods):
        own = 1 if name == "single" else members
        found[Cell(name, own, budget if METHODS[_method(name)].budgeted else "", seed)] = None
    return list(found)


def fit_cell(grid: Grid, cell: Cell, images: ImageData, state: Path | None = None) -> Result:
    """Fit and measure one cell; what goes wrong is its result, and stops nobody else.

    Args:
        grid: Of which it is one.
        cell: Which one.
        images: What to learn from and to measure on.
        state: Where to keep what a stopped fit goes on from.
    """
    return attempted(
        lambda: Result(cell, None, _measured(grid, cell, images, state), machine()), lambda why: Result(cell, why)
    )


def _measured(grid: Grid, cell: Cell, images: ImageData, state: Path | None) -> dict[str, float]:
    contestant = make(
        _method(cell.method),
        run.network(grid.plan, images),
        cell.members,
        settings_of(grid.plan, cell.method, cell.budget),
    )
    resumed = state is not None and state.exists()
    contestant.fit(images.learned, seed=cell.seed, directory=state)
    prediction = ask_about(contestant, images.measured).prediction
    values = _values(prediction, images) | _calibrated(contestant.calibrated(prediction), images) | _costs(contestant)
    return values if resumed else {**values, "seconds": contestant.seconds}


def _method(arm: str) -> str:
    return "structured" if arm == PUBLISHED else arm


def _values(prediction: Prediction, images: ImageData) -> dict[str, float]:
    return _known(plain(measure(prediction.probabilities, images.measured.labels))) | {
        "disagreement": float(disagreement(prediction.votes).mean()),
        "mutual_information": float(prediction.mutual_information.mean()),
    }


def _calibrated(prediction: Prediction, images: ImageData) -> dict[str, float]:
    """What the temperature that held-out images chose makes of it."""
    labels = images.measured.labels
    return {
        "nll_calibrated": nll(prediction.probabilities, labels),
        "ece_calibrated": ece(prediction.probabilities, labels),
    }


def _costs(contestant: Fittable) -> dict[str, float]:
    return _known(as_json(contestant.size())) | {"training_flops": contestant.training_flops}


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
