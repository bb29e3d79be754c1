"""Piggyback: the weights of the first task never change again, and every later task masks them.

Mallya, Davis and Lazebnik 2018, https://arxiv.org/abs/1801.06519.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies._masked import Mask, Masked, chosen, packed_masks
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.types import Architecture


class Piggyback(Masked):
    """Task 0 trains all weights; every later task trains real masks of them, and reads those above the threshold.

    As published the weights are those of a network trained on ImageNet. Here nothing is pretrained: what later tasks
    can do depends on the first one. Biases and normalisation layers are private to each task, and go on from those of
    task 0; as published they are frozen.

    Args:
        backbone: As for every `Strategy`.
        settings: As for every `Strategy`.
        seed: As for every `Strategy`.
        start: What all real masks start from, so that every weight is read at first; the farther from the threshold,
            the more steps it takes to leave one out.
        threshold: Below it a weight is not read; above 0.

    Raises:
        NetworkError: The backbone has no weights.
        SettingsError: The threshold is not above 0, or ``start`` is below it.
    """

    name: ClassVar[str] = "piggyback"
    chosen: tuple[Mapping[str, Tensor], ...] = ()

    def __init__(
        self,
        backbone: Architecture,
        settings: ContinualSettings,
        seed: int = 0,
        *,
        start: float = 0.01,
        threshold: float = 5e-3,
    ) -> None:
        super().__init__(backbone, settings, seed)
        if not 0 < threshold <= start < float("inf"):
            raise SettingsError(
                f"threshold {threshold} must be above 0 and at most start, which is {start}: 0.005 and 0.01 for example"
            )
        self.begin, self.threshold = start, threshold

    def _learn(self, task: Task, directory: Path | None) -> None:
        if not self.tasks:
            trained = self.train(self.start(task), task.train, task.held_out, directory)
            self.shared = trained.backbone
            self.remember(trained)
            return
        choose = partial(above, threshold=self.threshold)
        weights = {name: self.weight(name) for name in self.weights}
        makers = {name: Mask(one, torch.full_like(one, self.begin), choose) for name, one in weights.items()}
        masked = self.fit(self.start(task), makers, task, directory)
        self.chosen = (*self.chosen, chosen(masked))
        self.remember(masked.network)

    def masks(self, task: int) -> Mapping[str, Tensor]:
        """By weight, the entries that the task has chosen: task 0 reads all."""
        return self.chosen[task - 1] if task else super().masks(task)

    def stored_masks(self) -> dict[str, Tensor]:
        """One bit a weight and task but for task 0."""
        return packed_masks(self.chosen, first=1)


def above(scores: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The scores themselves, and which of them reach the threshold."""
    return scores, scores >= threshold
