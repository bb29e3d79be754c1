"""Numbers, pictures and tables about a finished predictor (the pictures need matplotlib: ``evaluation.pictures``)."""

from __future__ import annotations

from structured_ensembles.evaluation.metrics import (
    Metrics,
    Reliability,
    accuracy,
    brier,
    ece,
    measure,
    nll,
    reliability,
)
from structured_ensembles.evaluation.table import Row, render
from structured_ensembles.networks.sizes import Cost, buffers, flops, parameters

__all__ = [
    "Cost",
    "Metrics",
    "Reliability",
    "Row",
    "accuracy",
    "brier",
    "buffers",
    "ece",
    "flops",
    "measure",
    "nll",
    "parameters",
    "reliability",
    "render",
]
