"""Residual networks for small images: He et al. 2016, https://arxiv.org/abs/1512.03385, section 4.2."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from structured_ensembles.networks._arguments import choice, smallest_image
from structured_ensembles.networks.architectures._layers import he_initialise
from structured_ensembles.options.choices import Choice

WIDTHS = (16, 32, 64)


class Shortcut(Choice):
    """How a residual block's input is added to an output of another shape."""

    PAD = "pad"
    """Every second pixel, with channels of zeros added: no parameters (option A; 269,722 for ResNet-20)."""
    PROJECT = "project"
    """A 1x1 convolution with BatchNorm (option B; 272,474 for ResNet-20)."""


class Pad(nn.Module):
    """Option A: (B, C, H, W) to (B, C + 2 * margin, H / 2, W / 2), zeros around the channels."""

    def __init__(self, margin: int) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, images: Tensor) -> Tensor:
        """Drop every second pixel, add the channels of zeros."""
        return functional.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, self.margin, self.margin))


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and the shortcut around them."""

    def __init__(self, channels_in: int, channels_out: int, shortcut: Shortcut) -> None:
        super().__init__()
        stride = 1 if channels_in == channels_out else 2
        self.conv1 = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = _shortcut(channels_in, channels_out, shortcut)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape, or to twice the channels and half the pixels a side."""
        hidden = functional.relu(self.norm1(self.conv1(images)))
        residual: Tensor = self.norm2(self.conv2(hidden))
        return functional.relu(residual + self.shortcut(images))


class ResNet(nn.Module):
    """A ResNet of 6n + 2 layers: a stem and three stages of n blocks with 16, 32 and 64 channels.

    Args:
        channels: Of the images.
        classes: K.
        blocks: n, of each stage.
        shortcut: Between stages.
    """

    def __init__(self, channels: int, classes: int, blocks: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, WIDTHS[0], kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        widths = [WIDTHS[0], *(width for width in WIDTHS for _ in range(blocks))]
        self.blocks = nn.Sequential(*(Block(before, after, shortcut) for before, after in pairwise(widths)))
        self.head = nn.Linear(WIDTHS[-1], classes)
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, K)."""
        features: Tensor = self.blocks(functional.relu(self.norm(self.conv(images))))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def _shortcut(channels_in: int, channels_out: int, shortcut: Shortcut) -> nn.Module:
    if channels_in == channels_out:
        return nn.Identity()
    if shortcut is Shortcut.PAD:
        return Pad((channels_out - channels_in) // 2)
    projection = nn.Conv2d(channels_in, channels_out, kernel_size=1, stride=2, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(channels_out))


def _architecture(depth: int) -> Callable[..., nn.Module]:
    """The architecture of ``depth`` layers."""
    name = f"resnet{depth}"

    def build(input_shape: tuple[int, int, int], classes: int, shortcut: str = Shortcut.PROJECT) -> nn.Module:
        smallest_image(name, input_shape, 5)  # 5x5 still ends in 2x2, which BatchNorm needs for a batch of one
        return ResNet(input_shape[0], classes, (depth - 2) // 6, choice("shortcut", Shortcut, shortcut))

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"ResNet-{depth} for images of at least 5x5 pixels; ``shortcut`` is a `Shortcut` or its string."
    return build


resnet20 = _architecture(20)
resnet32 = _architecture(32)
resnet44 = _architecture(44)
resnet56 = _architecture(56)
