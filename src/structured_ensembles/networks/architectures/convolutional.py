"""The small convolutional network for small images."""

from __future__ import annotations

from torch import nn

from structured_ensembles.networks._arguments import smallest_image
from structured_ensembles.networks.architectures._layers import conv_norm_relu, halve, he_initialise, head

WIDTHS = (32, 64, 96)


def small_cnn(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Three convolutions with BatchNorm for images of 8x8 to 32x32: (B, C, H, W) to logits (B, K).

    75,946 parameters with 3 input channels and 10 classes. The image is halved before the second and the third
    convolution, as long as 2x2 positions remain.

    Raises:
        NetworkError: The images are smaller than 2x2.
    """
    smallest_image("small_cnn", input_shape, 2)
    channels, *size = input_shape
    first = conv_norm_relu(channels, WIDTHS[0])
    pool1, halved = halve((size[0], size[1]), smallest=2)
    pool2, _ = halve(halved, smallest=2)
    second, third = conv_norm_relu(WIDTHS[0], WIDTHS[1]), conv_norm_relu(WIDTHS[1], WIDTHS[2])
    network = nn.Sequential(*first, pool1, *second, pool2, *third, *head(WIDTHS[2], classes))
    he_initialise(network)
    return network
