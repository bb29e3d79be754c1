"""The strategies that the structured learner is compared with, one file each, all behind `strategy.Strategy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structured_ensembles.continual.strategies.batch_ensemble import BatchEnsemble
from structured_ensembles.continual.strategies.ewc import EWC
from structured_ensembles.continual.strategies.hat import HAT
from structured_ensembles.continual.strategies.joint import Joint
from structured_ensembles.continual.strategies.naive import Naive
from structured_ensembles.continual.strategies.packnet import PackNet
from structured_ensembles.continual.strategies.piggyback import Piggyback
from structured_ensembles.continual.strategies.replay import Replay
from structured_ensembles.continual.strategies.single_task import SingleTask
from structured_ensembles.continual.strategies.structured import Structured
from structured_ensembles.continual.strategies.supsup import SupSup
from structured_ensembles.continual.strategies.wsn import WSN
from structured_ensembles.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structured_ensembles.continual.strategies.base import Strategy

__all__ = [
    "EWC",
    "HAT",
    "STRATEGIES",
    "WSN",
    "BatchEnsemble",
    "Joint",
    "Naive",
    "PackNet",
    "Piggyback",
    "Replay",
    "SingleTask",
    "Structured",
    "SupSup",
    "strategy",
]

_KINDS: tuple[type[Strategy], ...] = (
    Structured,
    SingleTask,
    Joint,
    Naive,
    EWC,
    Replay,
    PackNet,
    SupSup,
    Piggyback,
    WSN,
    HAT,
    BatchEnsemble,
)

STRATEGIES: Mapping[str, type[Strategy]] = {kind.name: kind for kind in _KINDS}
"""Every strategy by its name, in the order of tables."""


def strategy(name: str) -> type[Strategy]:
    """The strategy of a name.

    Raises:
        SettingsError: There is none; the nearest name is proposed.
    """
    if name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES)
    return STRATEGIES[name]
