"""Streams of tasks: one network that learns one task after the other and forgets none."""

from structured_ensembles.continual.learner import ContinualLearner
from structured_ensembles.continual.memory import Memory
from structured_ensembles.continual.settings import (
    Capacity,
    ContinualSettings,
    CrossBlock,
    Exhausted,
    HeadKind,
    Norms,
    ThresholdOver,
    settings,
)

__all__ = [
    "Capacity",
    "ContinualLearner",
    "ContinualSettings",
    "CrossBlock",
    "Exhausted",
    "HeadKind",
    "Memory",
    "Norms",
    "ThresholdOver",
    "settings",
]
