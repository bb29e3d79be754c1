"""Joint training: with each new task, a fresh network learns all tasks so far at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from structured_ensembles.continual.learner.memory import Served
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies._routing import Routed, joined, tagged
from structured_ensembles.continual.strategies.base import SharedBackbone, served_examples


class Joint(SharedBackbone):
    """One backbone with a head for each task, trained on the images of all: the upper bound, which keeps all data.

    Each sample goes through the head of its own task. Every image is seen as often as in the other strategies, so that
    task t takes t + 1 times as many batches.
    """

    name: ClassVar[str] = "joint"
    forgets: ClassVar[bool] = True

    seen: tuple[Task, ...] = ()

    def _learn(self, task: Task, directory: Path | None) -> None:
        seen = (*self.seen, task)
        backbone = self.draw_backbone(0)
        network = Routed(backbone, [self.make_head(backbone, one, number) for number, one in enumerate(seen)])
        train = joined([tagged(one.train, number) for number, one in enumerate(seen)])
        held_out = joined([tagged(one.held_out, number) for number, one in enumerate(seen)])
        settings = self.settings.training
        if settings.max_steps is not None:
            settings = replace(settings, max_steps=settings.max_steps * len(seen))
        trained = self.train(network, train, held_out, directory, settings=settings)
        self.seen, self.shared, self.heads = seen, trained.backbone, tuple(trained.heads)

    def served(self) -> Served:
        """The backbone, the heads, and every image that the next task is learned with."""
        kept = [part for task in self.seen for part in (task.train, task.held_out)]
        return {**super().served(), "data": served_examples(kept)}
