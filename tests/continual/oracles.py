"""What only tests need: the published backbone, and numbers read back from packed bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structured_ensembles.networks.architectures.half_vgg import half_vgg11


def published_half_vgg11(input_shape: tuple[int, int, int]) -> nn.Module:
    """The published backbone: the convolutions of `half_vgg11` and maps (B, 256, 7, 7), copies of the last ones.

    The published head reads all 12,544 of these numbers; a linear head takes their mean.
    """
    convolutions = list(half_vgg11(input_shape, 2).children())[:-3]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(7))


def unpacked(stream: Tensor, bits: int, count: int) -> Tensor:
    """The first ``count`` numbers of what `memory.packed` gave, int64."""
    single = (stream.long()[:, None] >> torch.arange(8, device=stream.device)) & 1
    numbers = single.flatten()[: count * bits].view(count, bits)
    return (numbers << torch.arange(bits, device=stream.device)).sum(dim=1)
