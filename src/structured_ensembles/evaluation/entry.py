"""What ``metrics.json`` holds of one predictor, and the row of the table that is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from structured_ensembles.evaluation import cost
from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.metrics import Metrics, checked_answers, measure
from structured_ensembles.evaluation.table import Row
from structured_ensembles.networks.sizes import Cost
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.prediction.uncertainty import disagreement

SCHEMA, VERSION = "structens-evaluation", 1
"""Of the ``metrics.json`` of a whole evaluation."""


def title(name: str, members: int) -> str:
    """What a table calls a method."""
    words = {"single": "single network", "deep": "deep ensemble"}
    return words.get(name, name) + ("" if members == 1 else f" x {members}")


def evaluated(ensemble: Ensemble, answers: Answers, *, bins: int = 15, seconds: float | None = None) -> dict[str, Any]:
    """Everything that is measured about an ensemble: one method's part of ``metrics.json``.

    Args:
        ensemble: Whose answers they are.
        answers: To N labelled images.
        bins: Of the calibration error.
        seconds: How long fitting took; None if that is not known.
    """
    record, prediction = ensemble.record, answers.prediction
    threshold: Any = record.summary.get("rejection_threshold")
    rejection = answers.rejection(threshold)  # None where the artefact has no threshold
    return {
        "name": title(record.method, record.members),
        "method": record.method,
        "members": record.members,
        "metrics": plain(measure(prediction.probabilities, checked_answers(answers), bins)),
        "calibration_bins": bins,
        "disagreement": float(disagreement(prediction.votes).mean()),
        "rejection": rejection and {"threshold": float(threshold), **plain(rejection)},
        "cost": cost.as_json(ensemble.size(), seconds),
        "best_epochs": record.summary.get("best_epochs"),
        "held_out_accuracies": record.summary.get("held_out_accuracies"),
    }


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
