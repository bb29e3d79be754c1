"""Single-task networks: each task has one of its own, drawn and trained afresh."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import nn

from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.learner.memory import Served
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies.base import Strategy, served_backbone, served_heads


class SingleTask(Strategy):
    """As many backbones as tasks: nothing is forgotten, nothing is passed on, and memory grows by as much each time."""

    name: ClassVar[str] = "single_task"
    forgets: ClassVar[bool] = False

    networks: tuple[TaskNetwork, ...] = ()

    def _learn(self, task: Task, directory: Path | None) -> None:
        backbone = self.draw_backbone(len(self.tasks))
        network = TaskNetwork(backbone, self.make_head(backbone, task, len(self.tasks)))
        self.networks = (*self.networks, self.train(network, task.train, task.held_out, directory))

    def _network(self, task: int) -> nn.Module:
        return self.networks[task]

    def served(self) -> Served:
        """All of the networks."""
        parts = [served_backbone(network.backbone, f"{number}.") for number, network in enumerate(self.networks)]
        merged = {name: {k: v for part in parts for k, v in part[name].items()} for name in ("shared", "normalisation")}
        return {**merged, "heads": served_heads([network.head for network in self.networks])}
