"""Streams of tasks: one network that learns one task after the other and forgets none."""

from __future__ import annotations

from structured_ensembles.continual.learner.heads import HeadKind
from structured_ensembles.continual.learner.inference import Inferred, Per
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.continual.learner.memory import Memory
from structured_ensembles.continual.learner.profile import Score
from structured_ensembles.options.streams import (
    Capacity,
    ContinualSettings,
    CrossBlock,
    Exhausted,
    Norms,
    ThresholdOver,
)

__all__ = [
    "Capacity",
    "ContinualLearner",
    "ContinualSettings",
    "CrossBlock",
    "Exhausted",
    "HeadKind",
    "Inferred",
    "Memory",
    "Norms",
    "Per",
    "Score",
    "ThresholdOver",
]
