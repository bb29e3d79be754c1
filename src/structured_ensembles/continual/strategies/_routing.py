"""Training on the examples of several tasks at once, each through the head of its own task.

What is trained sees images and nothing else, so the number of the task travels with the image, as a plane of pixels
behind its channels. Crops and flips move that plane's pixels and add black ones: its largest pixel stays the number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from structured_ensembles.data.sources.records import Split, as_float
from structured_ensembles.errors import SettingsError

MOST_TASKS = 256
"""A number has to fit in one pixel."""


class Routed(nn.Module):
    """A backbone and the heads of all tasks: inputs (B, C + 1, H, W), see `tagged`, to logits (B, K).

    K is the largest number of classes; a task with fewer gives minus infinity to the classes that it does not have.

    Args:
        backbone: Takes the images without their plane.
        heads: By number of the task.
    """

    def __init__(self, backbone: nn.Module, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.backbone, self.heads = backbone, nn.ModuleList(heads)

    def forward(self, inputs: Tensor) -> Tensor:
        """Each example's logits, by the head of its own task."""
        features = self.backbone(inputs[:, :-1])
        tasks = (inputs[:, -1].flatten(1).amax(dim=1) * 255).round().long()
        rows = [(tasks == number).nonzero().flatten() for number in range(len(self.heads))]
        parts = [head(features[chosen]) for head, chosen in zip(self.heads, rows, strict=True) if len(chosen)]
        widest = max(part.shape[1] for part in parts)
        logits = torch.cat([pad(part, (0, widest - part.shape[1]), value=-torch.inf) for part in parts])
        return logits[torch.cat(rows).argsort()]


def tagged(split: Split, task: int) -> Split:
    """The images with one plane more, (N, C + 1, H, W), which holds the number of their task.

    Raises:
        SettingsError: The number does not fit.
    """
    if task >= MOST_TASKS:
        raise SettingsError(f"task {task}: at most {MOST_TASKS} tasks can be learned together")
    number = task if split.images.dtype == torch.uint8 else task / 255
    plane = torch.full_like(split.images[:, :1], number)
    return Split(torch.cat([split.images, plane], dim=1), split.labels)


def joined(splits: Sequence[Split]) -> Split:
    """One split after the other, as floats if some of them are."""
    images = [split.images for split in splits]
    if len({part.dtype for part in images}) > 1:
        images = [as_float(part) for part in images]
    return Split(torch.cat(images), torch.cat([split.labels for split in splits]))
