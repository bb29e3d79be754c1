"""Heads: what turns the features that all tasks share into the logits of one task.

Shapes: B batch, K classes of the task, d features, or maps (C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from structured_ensembles.errors import NetworkError
from structured_ensembles.options.choices import HeadKind
from structured_ensembles.seeding import seeded

DROPOUT = 0.25
"""Of the published head."""


class TaskNetwork(nn.Module):
    """A backbone and the head of one task: inputs (B, ...) to logits (B, K).

    Args:
        backbone: Gives features (B, d) or maps (B, C, H, W).
        head: Takes them.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, inputs: Tensor) -> Tensor:
        """The task's logits."""
        logits: Tensor = self.head(self.backbone(inputs))
        return logits


def make_head(kind: HeadKind, features: Sequence[int], classes: int, seed: int) -> nn.Module:
    """A freshly initialised head; the global generator is left as it was.

    Args:
        kind: What it is made of.
        features: Shape of what the backbone gives for one example: (d,) or (C, H, W).
        classes: K.
        seed: Of its weights.

    Raises:
        NetworkError: The features are neither a vector nor maps, or too few for the published head.
    """
    before, width = _front(kind, features)
    with seeded(seed):
        if kind is HeadKind.LINEAR:
            return nn.Sequential(*before, nn.Linear(width, classes))
        if width < 4:
            raise NetworkError(f"the published head needs at least 4 features, and there are {width}: use head linear")
        return nn.Sequential(
            *before,
            *[nn.Linear(width, width // 2), nn.Dropout(DROPOUT), nn.ReLU()],
            *[nn.Linear(width // 2, width // 4), nn.Dropout(DROPOUT), nn.ReLU()],
            nn.Linear(width // 4, classes),
        )


def probe_head(kind: HeadKind, features: Sequence[int], classes: int = 2) -> nn.Module:
    """A small head whose first layer has the name and the inputs of `make_head`'s: enough to see what it reads."""
    before, width = _front(kind, features)
    with seeded(0):
        return nn.Sequential(*before, nn.Linear(width, classes))


def _front(kind: HeadKind, features: Sequence[int]) -> tuple[list[nn.Module], int]:
    """What comes before the first linear layer, and how many numbers that leaves."""
    if len(features) not in {1, 3}:
        raise NetworkError(
            f"the backbone gives features of shape (B, {', '.join(map(str, features))}): it must end in features "
            "(B, d) or in maps (B, C, H, W)"
        )
    if kind is HeadKind.LINEAR and len(features) == 3:
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()], features[0]
    return [nn.Flatten()], math.prod(features)
