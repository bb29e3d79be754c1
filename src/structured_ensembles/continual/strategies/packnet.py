"""PackNet: each task trains the weights that are free, keeps the largest, and frees the others for the next.

Mallya and Lazebnik 2018, https://arxiv.org/abs/1711.05769.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from structured_ensembles.continual.learner import capacity
from structured_ensembles.continual.learner.memory import owner_bits, packed
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies._masked import Masked, Partial, Reweighted, filled, largest
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.training.limits import limited
from structured_ensembles.types import Architecture

NOBODY = -1


class PackNet(Masked):
    """Every single weight has an owner: a task reads its own weights and those of the tasks before, which stay.

    A task trains the free weights, from the values that they were first drawn with, while those of earlier tasks are in
    place and frozen. Of every weight tensor it keeps the largest, a share of what was free, and frees the others; what
    it kept is trained on. The share is that of the structured learner: ``keep``, or one in as many as there are tasks
    to come (capacity equal). All this takes the epochs of every other strategy: a third of them, rounded down but at
    least one, come after the pruning; with a budget of one epoch none does.

    Where nothing is free a task learns its head and its private tensors. Biases and normalisation layers are private to
    each task, and go on from those of the task before. As published they are frozen after the first task, and weights
    that are freed start from zero, which learned less well here.
    """

    name: ClassVar[str] = "packnet"

    def __init__(self, backbone: Architecture, settings: ContinualSettings, seed: int = 0) -> None:
        super().__init__(backbone, settings, seed)
        self.owners: dict[str, Tensor] = {
            name: torch.full(self.weight(name).shape, NOBODY, dtype=torch.int16) for name in self.weights
        }

    def _learn(self, task: Task, directory: Path | None) -> None:
        free = {name: owner == NOBODY for name, owner in self.owners.items()}
        fresh = self.draw_backbone(0).requires_grad_(
            requires_grad=False
        )  # what free weights were before the first task
        start = {name: torch.where(free[name], fresh.get_parameter(name), self.weight(name)) for name in free}
        before, after = _phases(limited(self.settings.training, len(task.train)))
        folder = directory and directory / "train"
        found = self.fit(self.start(task), self._makers(start, free), task, folder, before)
        share = capacity.share(self.settings, len(self.tasks))
        mine = {name: survivors(weight, free[name], share) for name, weight in found.made().items()}
        makers = self._makers(found.made(), mine)
        if after is None:
            found = Reweighted(found.network, makers)
        else:
            found = self.fit(found.network, makers, task, directory and directory / "retrain", after)
        number = len(self.tasks)
        self.owners = {name: torch.where(mine[name], number, owner) for name, owner in self.owners.items()}
        self.shared = filled(found.network.backbone, found.made())
        self.remember(found.network)

    def _makers(self, start: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        """Weights that are their own task's from a start on, those of earlier tasks, and zero elsewhere."""
        earlier = self.read_by(len(self.tasks) - 1)
        return {name: Partial(start[name], own[name], earlier[name]) for name in start}

    def masks(self, task: int) -> dict[str, Tensor]:
        """By weight, the entries that this task or one before it owns."""
        return {name: (owner != NOBODY) & (owner <= task) for name, owner in self.owners.items()}

    def capacity(self) -> dict[str, float]:
        """By layer, the share of its weights that nobody owns."""
        return {
            name.removesuffix(".weight"): float((owner == NOBODY).double().mean())
            for name, owner in self.owners.items()
        }

    def stored_weights(self) -> dict[str, Tensor]:
        """Those that have an owner: free weights are drawn again by the seed."""
        return {name: self.weight(name)[owner != NOBODY] for name, owner in self.owners.items()}

    def stored_masks(self) -> dict[str, Tensor]:
        """The owner of every weight, which says where they are."""
        bits = owner_bits(len(self.tasks))
        return {name: packed(owner - NOBODY, bits) for name, owner in self.owners.items()} if bits else {}


def survivors(weight: Tensor, own: Tensor, share: float) -> Tensor:
    """The largest of a task's own weights in one tensor, at least one if it has any: bool."""
    return largest(torch.where(own, weight.abs(), -1.0), math.ceil(share * int(own.sum())))


def _phases(settings: TrainingSettings) -> tuple[TrainingSettings, TrainingSettings | None]:
    """The training before the pruning and the one after it, which have as many epochs together as there are."""
    after = max(settings.epochs // 3, min(1, settings.epochs - 1))
    before = replace(settings, epochs=settings.epochs - after, max_steps=None)
    return before, replace(before, epochs=after) if after else None
