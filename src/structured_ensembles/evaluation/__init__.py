"""Numbers, pictures and tables about a finished predictor (the pictures need matplotlib: ``evaluation.pictures``)."""

from __future__ import annotations

from structured_ensembles.sizes import buffers, flops, parameters

from .cost import Cost
from .metrics import Metrics, Reliability, accuracy, brier, ece, measure, nll, reliability
from .table import Row, as_json, render

__all__ = [
    "Cost",
    "Metrics",
    "Reliability",
    "Row",
    "accuracy",
    "as_json",
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
