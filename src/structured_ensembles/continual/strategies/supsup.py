"""SupSup: random weights that never change, and for each task a mask that says which of them it reads.

Wortsman et al. 2020, https://arxiv.org/abs/2006.14769; the choice of entries is that of Ramanujan et al. 2020,
https://arxiv.org/abs/1911.13299.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds
from structured_ensembles.continual.learner.memory import packed
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies._masked import Choosing, Mask, chosen, largest, private_names
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.seeding import derived_seed
from structured_ensembles.types import Architecture

_SIGNS, _SCORES = 6, 7
"""What seeds are for."""


class SupSup(Choosing):
    """Every task trains scores of the weights, and reads those whose scores are the largest in absolute value.

    Of each weight tensor the kept share is chosen, exactly. The weights are random signs times a constant of the
    tensor, sqrt(2 / (keep * fan_in)), which keeps the size of signals. Scores are drawn for each task as Linear layers
    draw weights. Normalisation layers have private statistics, and neither scale nor shift; biases and all other
    parameters of the backbone stay as they were drawn. Only masks, statistics and heads differ between tasks.

    Args:
        backbone: As for every `Strategy`.
        settings: As for every `Strategy`.
        seed: As for every `Strategy`.
        keep: The share of the weights that a task reads, in (0, 1].

    Raises:
        NetworkError: The backbone has no weights.
        SettingsError: ``keep`` is outside its limits.
    """

    name: ClassVar[str] = "supsup"

    def __init__(
        self, backbone: Architecture, settings: ContinualSettings, seed: int = 0, *, keep: float = 0.5
    ) -> None:
        super().__init__(backbone, settings, seed, keep=keep)
        _freeze(self.shared, self.weights, keep, derived_seed(seed, _SIGNS))
        self.private_names = private_names(self.shared, self.weights)

    def _learn(self, task: Task, directory: Path | None) -> None:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, _SCORES, len(self.tasks)))
        choose = partial(by_size, keep=self.keep)
        makers = {}
        for name in self.weights:
            weight = self.weight(name)
            scores = nn.init.kaiming_uniform_(torch.empty_like(weight), a=math.sqrt(5), generator=generator)
            makers[name] = Mask(weight, scores, choose)
        trained = self.fit(self.start(task), makers, task, directory)
        self.chosen = (*self.chosen, chosen(trained))
        self.remember(trained.network)

    def stored_weights(self) -> dict[str, Tensor]:
        """Signs, and one constant for each weight."""
        weights = super().stored_weights()
        signs = {f"sign.{name}": packed(weight > 0, 1) for name, weight in weights.items()}
        return signs | {f"size.{name}": weight.abs().max() for name, weight in weights.items()}


def by_size(scores: Tensor, keep: float) -> tuple[Tensor, Tensor]:
    """The absolute values, and which of them are the largest: this share of them, rounded, and at least one."""
    size = scores.abs()
    return size, largest(size, max(1, round(keep * size.numel())))


def _freeze(backbone: nn.Module, weights: tuple[str, ...], keep: float, seed: int) -> None:
    """Give the weights random signs and one size a tensor, take scale and shift off norms, and train nothing."""
    generator = torch.Generator().manual_seed(seed)
    for module in backbone.modules():
        if kinds.normalises(module):
            module.register_parameter("weight", None)
            module.register_parameter("bias", None)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if name in weights:
                size = math.sqrt(2 / (keep * parameter[0].numel()))
                parameter.copy_((torch.randint(2, parameter.shape, generator=generator) * 2 - 1) * size)
            else:
                parameter.requires_grad = False
