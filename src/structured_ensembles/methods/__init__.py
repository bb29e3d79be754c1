"""What a structured ensemble is compared with, one file per method, all behind the one `types.Method` protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structured_ensembles.ensemble import StructuredEnsemble
from structured_ensembles.errors import unknown
from structured_ensembles.methods.deep import DeepEnsemble
from structured_ensembles.methods.single import SingleNetwork

if TYPE_CHECKING:
    from structured_ensembles.fitting import Fittable

__all__ = ["METHODS", "DeepEnsemble", "SingleNetwork", "StructuredEnsemble", "method"]

METHODS: dict[str, type[Fittable]] = {kind.method: kind for kind in (SingleNetwork, StructuredEnsemble, DeepEnsemble)}
"""Every method by its name."""


def method(name: str) -> type[Fittable]:
    """The method of a name.

    Raises:
        SettingsError: There is none; the nearest name is proposed.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]
