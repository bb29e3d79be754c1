"""The half-width VGG-11 of the published experiments on streams of tasks: no normalisation and no biases."""

from __future__ import annotations

from torch import nn

from structured_ensembles.networks.architectures._layers import halve, he_initialise, head

WIDTHS = ((32,), (64,), (128, 128), (256, 256), (256, 256))
"""Output channels of the convolutions, by stage; each stage ends in pooling."""


def half_vgg11(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Eight convolutions without normalisation or bias: (B, C, H, W) to logits (B, K).

    2,304,864 weights in the convolutions with 3 input channels.
    """
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    size = (height, width)
    for stage in WIDTHS:
        for channels_out in stage:
            layers += [nn.Conv2d(channels, channels_out, kernel_size=3, padding=1, bias=False), nn.ReLU()]
            channels = channels_out
        pool, size = halve(size, smallest=1)
        layers.append(pool)
    network = nn.Sequential(*layers, *head(channels, classes))
    he_initialise(network)
    return network
