"""VGGs with BatchNorm made for 32x32 images: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556.

The head is a global average pooling and one linear layer. The three linear layers of the original, fed with 7x7 copies
of the single value per channel that a 32x32 image leaves, hold most of its parameters and inflate every saving.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from structured_ensembles.networks._arguments import smallest_image
from structured_ensembles.networks.architectures._layers import conv_norm_relu, halve, he_initialise, head

Stages = Sequence[Sequence[int]]
"""Output channels of the convolutions, by stage; stages are parted by pooling."""

VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG13 = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SMALL_VGG = ((32,), (64, 64), (128, 128))


def vgg11(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """VGG-11 for images of at least 2x2 pixels: (B, C, H, W) to logits (B, K)."""
    return _vgg("vgg11", input_shape, classes, VGG11, pool_last=True)


def vgg13(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """VGG-13 for images of at least 2x2 pixels: (B, C, H, W) to logits (B, K)."""
    return _vgg("vgg13", input_shape, classes, VGG13, pool_last=True)


def vgg16(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """VGG-16 for images of at least 2x2 pixels: (B, C, H, W) to logits (B, K)."""
    return _vgg("vgg16", input_shape, classes, VGG16, pool_last=True)


def small_vgg(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Five convolutions for images of at least 2x2 pixels: (B, C, H, W) to logits (B, K).

    279,466 parameters with 3 input channels and 10 classes.
    """
    return _vgg("small_vgg", input_shape, classes, SMALL_VGG, pool_last=False)


def _vgg(name: str, input_shape: tuple[int, int, int], classes: int, stages: Stages, *, pool_last: bool) -> nn.Module:
    smallest_image(name, input_shape, 2)
    channels, height, width = input_shape
    size = (height, width)
    layers: list[nn.Module] = []
    for position, widths in enumerate(stages):
        if position:
            pool, size = halve(size, smallest=2)
            layers.append(pool)
        for channels_out in widths:
            layers += conv_norm_relu(channels, channels_out)
            channels = channels_out
    layers += [halve(size, smallest=1)[0]] if pool_last else []
    network = nn.Sequential(*layers, *head(channels, classes))
    he_initialise(network)
    return network
