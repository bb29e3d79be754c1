"""What ``metrics.json`` holds of one predictor, and the row of the table that is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from torch import Tensor

from structured_ensembles.evaluation import cost
from structured_ensembles.evaluation.metrics import Metrics, measure
from structured_ensembles.evaluation.table import Row
from structured_ensembles.networks.sizes import Cost
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.prediction.uncertainty import disagreement, rejection_report
from structured_ensembles.types import Prediction

SCHEMA, VERSION = "structens-evaluation", 1
"""Of the ``metrics.json`` of a whole evaluation."""


def title(name: str, members: int) -> str:
    """What a table calls a method."""
    words = {"single": "single network", "deep": "deep ensemble"}
    return words.get(name, name) + ("" if members == 1 else f" x {members}")


def evaluated(
    ensemble: Ensemble, prediction: Prediction, labels: Tensor, *, bins: int = 15, seconds: float | None = None
) -> dict[str, Any]:
    """Everything that is measured about an ensemble: one method's part of ``metrics.json``.

    Args:
        ensemble: Whose answers they are.
        prediction: Its `answer` to N images.
        labels: (N,), what the images show.
        bins: Of the calibration error.
        seconds: How long fitting took; None if that is not known.
    """
    record = ensemble.record
    return {
        "name": title(record.method, record.members),
        "method": record.method,
        "members": record.members,
        "metrics": plain(measure(prediction.probabilities, labels, bins)),
        "calibration_bins": bins,
        "disagreement": float(disagreement(prediction.votes).mean()),
        "rejection": _rejection(prediction, labels, record.summary.get("rejection_threshold")),
        "cost": cost.as_json(ensemble.size(), seconds),
        "best_epochs": record.summary.get("best_epochs"),
        "held_out_accuracies": record.summary.get("held_out_accuracies"),
    }


def _rejection(prediction: Prediction, labels: Tensor, threshold: Any) -> dict[str, float | None] | None:  # noqa: ANN401
    """What abstaining above an artefact's threshold does; None where the artefact has none."""
    if threshold is None:
        return None
    report = rejection_report(prediction.predictive_entropy, prediction.classes == labels, float(threshold))
    return {"threshold": float(threshold), **plain(report)}


def row(entry: Mapping[str, Any]) -> Row:
    """The table's row of what `evaluated` gave, also after a round trip through JSON."""
    numbers: dict[str, Any] = {name: math.nan if value is None else value for name, value in entry["metrics"].items()}
    return Row(entry["name"], Metrics(**numbers), cost.from_json(entry["cost"]), entry["cost"]["seconds"])


def unfitted(whole: Cost) -> Row:
    """The row of the whole network, of which only the cost is known."""
    return Row("whole network", None, whole)


def plain(value: Any) -> Any:  # noqa: ANN401 (whatever a measurement holds)
    """As JSON has it: dicts, lists, and None for what is not a finite number."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
