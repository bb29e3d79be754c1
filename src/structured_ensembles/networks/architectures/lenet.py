"""LeNet-5."""

from __future__ import annotations

from torch import nn

from structured_ensembles.networks._arguments import number
from structured_ensembles.networks.architectures._layers import he_initialise

WIDTHS = (6, 16, 120, 84)
"""The channels of its hidden layers."""

FIELD = 32
"""The side of the images that LeNet-5 was made for: smaller ones are padded to it, as the paper pads 28x28 digits."""


def lenet5(input_shape: tuple[int, int, int], classes: int, width_mult: float = 1.0) -> nn.Module:
    """LeNet-5 with ReLU and max-pooling: (B, C, H, W) to logits (B, K).

    61,706 parameters with 1 input channel and 10 classes on images of up to 32x32. ``width_mult`` multiplies the
    channels of all hidden layers: a stream of tasks can take more than one network of the usual width holds.
    LeCun et al. 1998, https://doi.org/10.1109/5.726791, with full connections between its convolutions.

    Raises:
        SettingsError: ``width_mult`` is not in 0.25 to 16.
    """
    number("width_mult", width_mult, 0.25, 16)
    channels, height, width = input_shape
    padding = (_padding(height), _padding(width))
    rows, columns = _reduced(height), _reduced(width)
    a, b, c, d = (max(1, round(width_mult * width)) for width in WIDTHS)
    network = nn.Sequential(
        *[nn.Conv2d(channels, a, kernel_size=5, padding=padding), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(a, b, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
        *[nn.Linear(b * rows * columns, c), nn.ReLU(), nn.Linear(c, d), nn.ReLU(), nn.Linear(d, classes)],
    )
    he_initialise(network)
    return network


def _padding(side: int) -> int:
    """Pixels to add on either end of a side."""
    return max(0, (FIELD - side + 1) // 2)


def _reduced(side: int) -> int:
    """What remains of a side after two 5x5 convolutions, each followed by pooling."""
    padded = side + 2 * _padding(side)
    return ((padded - 4) // 2 - 4) // 2
