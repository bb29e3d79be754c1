"""What one predictor costs beside whole networks, and as files have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from structured_ensembles.artefact.file import Record
from structured_ensembles.methods.deep import DeepEnsemble
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.networks import NetworkSpec, build
from structured_ensembles.networks.modules import draw
from structured_ensembles.networks.sizes import Cost
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.ensemble import Ensemble

_WRITTEN = {"bytes": "bytes_on_disk"}
"""Fields that files know by another name."""


def untrained(
    spec: NetworkSpec, classes: Sequence[str], members: int = 1, combine: Combine = Combine.PROBABILITIES
) -> Ensemble:
    """So many whole networks, as they would be saved after training: what others are measured by."""
    method = SingleNetwork.method if members == 1 else DeepEnsemble.method
    record = Record(method, members, tuple(classes), spec.input_shape, combine, spec)
    return Ensemble([draw(lambda: build(spec), member) for member in range(members)], record)


def as_json(cost: Cost, seconds: float | None = None) -> dict[str, float | None]:
    """As files have it.

    Args:
        cost: Of one predictor.
        seconds: How long fitting took; None where nothing was fitted, or nobody knows.
    """
    return {**{_WRITTEN.get(name, name): number for name, number in asdict(cost).items()}, "seconds": seconds}


def from_json(numbers: Mapping[str, Any]) -> Cost:
    """Of what `as_json` gave."""
    return Cost(**{one.name: numbers[_WRITTEN.get(one.name, one.name)] for one in fields(Cost)})
