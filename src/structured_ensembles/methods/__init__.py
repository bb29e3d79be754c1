"""What a structured ensemble is compared with, one file per method, all behind the one `types.Method` protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from structured_ensembles.errors import unknown
from structured_ensembles.methods.batch_ensemble import BatchEnsemble
from structured_ensembles.methods.deep import DeepEnsemble
from structured_ensembles.methods.magnitude import MagnitudeEnsemble
from structured_ensembles.methods.masksembles import Masksembles
from structured_ensembles.methods.mc_dropout import MCDropout
from structured_ensembles.methods.mimo import MIMO
from structured_ensembles.methods.narrow import NarrowEnsemble, SlicedNarrowEnsemble
from structured_ensembles.methods.packed import PackedEnsemble
from structured_ensembles.methods.random_channels import RandomEnsemble
from structured_ensembles.methods.shuffled import ShuffledEnsemble
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.methods.snapshot import SnapshotEnsemble
from structured_ensembles.methods.structured import StructuredEnsemble

if TYPE_CHECKING:
    from structured_ensembles.methods.fitting import Base, Fittable
    from structured_ensembles.options.ensemble import Settings

__all__ = [
    "METHODS",
    "MIMO",
    "BatchEnsemble",
    "DeepEnsemble",
    "MCDropout",
    "MagnitudeEnsemble",
    "Masksembles",
    "NarrowEnsemble",
    "PackedEnsemble",
    "RandomEnsemble",
    "ShuffledEnsemble",
    "SingleNetwork",
    "SlicedNarrowEnsemble",
    "SnapshotEnsemble",
    "StructuredEnsemble",
    "make",
    "method",
]

METHODS: dict[str, type[Fittable]] = {
    kind.method: kind
    for kind in (
        SingleNetwork,
        StructuredEnsemble,
        ShuffledEnsemble,
        RandomEnsemble,
        MagnitudeEnsemble,
        NarrowEnsemble,
        SlicedNarrowEnsemble,
        PackedEnsemble,
        MCDropout,
        SnapshotEnsemble,
        BatchEnsemble,
        Masksembles,
        MIMO,
        DeepEnsemble,
    )
}
"""Every method by its name, in the order of tables."""


def method(name: str) -> type[Fittable]:
    """The method of a name.

    Raises:
        SettingsError: There is none; the nearest name is proposed.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def make(name: str, base: Base, members: int = 4, settings: Settings | None = None) -> Fittable:
    """A method by its name, ready to be fitted.

    Args:
        name: Of `METHODS`.
        base: What makes the base network.
        members: M; ``single`` is one network, whatever it is.
        settings: Everything else; None takes the default preset for the network's family.

    Raises:
        SettingsError: There is no such method, or a setting is outside its limits.
    """
    kind: Any = method(name)  # methods differ in what they take
    count = () if kind is SingleNetwork else (members,)
    return kind(base, *count, settings=settings)  # type: ignore[no-any-return]
