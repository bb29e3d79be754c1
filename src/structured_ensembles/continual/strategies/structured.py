"""Each task owns channels of one network: the structured learner among the strategies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.continual.learner.memory import Served
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies.base import Strategy
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.types import Architecture


class Structured(Strategy):
    """What `ContinualLearner` does, on the tasks and under the protocol of all strategies.

    Args:
        backbone: Makes the backbone.
        settings: How tasks are learned.
        seed: Of everything random, at least 0.
    """

    name = "structured"
    forgets = False

    def __init__(self, backbone: Architecture, settings: ContinualSettings, seed: int = 0) -> None:
        super().__init__(backbone, settings, seed)
        self.learner = ContinualLearner(backbone, settings=settings, seed=seed)

    def _learn(self, task: Task, directory: Path | None) -> None:
        self.learner.settings = self.settings
        self.learner.learn(task.train, task.held_out, name=task.name, classes=task.classes, directory=directory)

    def _network(self, task: int) -> nn.Module:
        return self.learner.network(task)

    def served(self) -> Served:
        """Weights of the tasks' channels, norms, owners and heads."""
        return self.learner.served()

    def capacity(self) -> Mapping[str, float] | None:
        """By layer, the share of channels that no task owns."""
        return self.learner.capacity()

    @property
    def owners(self) -> dict[str, list[int]]:
        """By layer, the task that owns each channel; -1 for none."""
        return {name: owner.tolist() for name, owner in self.learner.state.owners.items()}
