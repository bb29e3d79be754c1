"""Turn one untrained neural network into an ensemble of small sub-networks that knows when it does not know."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from structured_ensembles.errors import StructensError
    from structured_ensembles.methods.deep import DeepEnsemble
    from structured_ensembles.methods.single import SingleNetwork
    from structured_ensembles.methods.structured import StructuredEnsemble
    from structured_ensembles.networks import NetworkSpec
    from structured_ensembles.options.budget import Budget
    from structured_ensembles.options.choices import Preset
    from structured_ensembles.options.ensemble import Settings
    from structured_ensembles.options.presets import settings
    from structured_ensembles.prediction.ensemble import Ensemble
    from structured_ensembles.types import Prediction

__all__ = [
    "Budget",
    "DeepEnsemble",
    "Ensemble",
    "NetworkSpec",
    "Prediction",
    "Preset",
    "Settings",
    "SingleNetwork",
    "StructensError",
    "StructuredEnsemble",
    "settings",
]

_HOMES = {
    "Budget": "options.budget",
    "DeepEnsemble": "methods.deep",
    "Ensemble": "prediction.ensemble",
    "NetworkSpec": "networks",
    "Prediction": "types",
    "Preset": "options.choices",
    "Settings": "options.ensemble",
    "SingleNetwork": "methods.single",
    "StructensError": "errors",
    "StructuredEnsemble": "methods.structured",
    "settings": "options.presets",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever the name stands for)
    """Import a public name when it is first asked for: the command's help needs no torch."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
