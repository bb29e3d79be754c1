"""Streams of tasks: one network that learns one task after the other and forgets none."""

from __future__ import annotations

from structured_ensembles.continual.learner.inference import Inferred
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.continual.learner.memory import Memory
from structured_ensembles.options.streams import ContinualSettings

__all__ = ["ContinualLearner", "ContinualSettings", "Inferred", "Memory"]
