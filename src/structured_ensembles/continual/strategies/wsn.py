"""Winning sub-networks: each task learns which share of the weights it reads, and trains those that no task read yet.

Kang et al. 2022, https://proceedings.mlr.press/v162/kang22b.html.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies._masked import Choosing, Mask, Partial, filled, largest
from structured_ensembles.seeding import derived_seed

_SCORES = 6
"""What a seed is for."""


class WSN(Choosing):
    """Weights and scores are trained together; a task reads the entries of the largest absolute scores.

    Every matrix and kernel is masked on its own, and masks of tasks may overlap: a task reads entries of earlier tasks
    in place, frozen, and trains the others. Biases and normalisation layers are private to each task and go on from
    those of the task before.

    What no task reads goes back to what was drawn at the start, and the scores of each task are drawn afresh, so that
    between tasks nothing has to be stored but the entries in use and one bit for each weight and task. The published
    code lets both go on.
    """

    name: ClassVar[str] = "wsn"

    def _learn(self, task: Task, directory: Path | None) -> None:
        used, draw = self._used(), torch.Generator().manual_seed(derived_seed(self.seed, _SCORES, len(self.tasks)))
        winners = {name: Winner(self.weight(name), used[name], self.keep, draw) for name in self.weights}
        trained = self.fit(self.start(task), winners, task, directory)
        found = {name: winner for name, winner in trained.made_by.items() if isinstance(winner, Winner)}
        self.chosen = (*self.chosen, {name: winner.mask.chosen() for name, winner in found.items()})
        values = {
            name: torch.where(mask, found[name].values().detach(), self.weight(name))
            for name, mask in self._used().items()
        }
        self.shared = filled(trained.network.backbone, values)
        self.remember(trained.network)

    def _used(self) -> dict[str, Tensor]:
        """By weight, the entries that some task reads."""
        return {name: united([masks[name] for masks in self.chosen], self.weight(name)) for name in self.weights}

    def capacity(self) -> dict[str, float]:
        """By layer, the share of its weights that no task reads."""
        return {name.removesuffix(".weight"): 1 - float(mask.double().mean()) for name, mask in self._used().items()}

    def stored_weights(self) -> dict[str, Tensor]:
        """The entries that some task reads."""
        return {name: self.weight(name)[mask] for name, mask in self._used().items()}


class Winner(nn.Module):
    """A weight whose entries are chosen by their scores while those that are not in use yet are trained.

    Args:
        weight: Where the training starts.
        used: The entries that stay as they are, bool.
        keep: The share that is chosen.
        generator: Draws the scores, as evenly spread as an untrained layer's weights.
    """

    def __init__(self, weight: Tensor, used: Tensor, keep: float, generator: torch.Generator) -> None:
        super().__init__()
        bound = weight[0].numel() ** -0.5
        scores = (2 * torch.rand(weight.shape, generator=generator) - 1) * bound
        self.values = Partial(weight, ~used, weight)
        self.mask = Mask(torch.ones(()), scores, partial(strongest, count=math.ceil(keep * weight.numel())))

    def forward(self) -> Tensor:
        """The weight where it is chosen, else 0; gradients reach the scores straight through the choice."""
        made: Tensor = self.values() * self.mask()
        return made


def strongest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The absolute scores, and which are the largest."""
    strength = scores.abs()
    return strength, largest(strength, count)


def united(masks: Iterable[Tensor], like: Tensor) -> Tensor:
    """Where any of the masks is true; of no masks nowhere. Bool, of the shape of ``like``."""
    total = torch.zeros(like.shape, dtype=torch.bool)
    for mask in masks:
        total = total | mask
    return total
