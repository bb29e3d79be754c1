"""Naive fine-tuning: the one backbone goes on with each task, and nothing protects what it knew."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies.base import SharedBackbone


class Naive(SharedBackbone):
    """All of the backbone is trained on each task in turn, with the task's own head: the lower bound."""

    name: ClassVar[str] = "naive"
    forgets: ClassVar[bool] = True

    def _learn(self, task: Task, directory: Path | None) -> None:
        trained = self.train(self.start(task), task.train, task.held_out, directory)
        self.shared, self.heads = trained.backbone, (*self.heads, trained.head)
