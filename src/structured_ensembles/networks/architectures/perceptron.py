"""The multilayer perceptron."""

from __future__ import annotations

import math

from torch import nn

from structured_ensembles.errors import NetworkError
from structured_ensembles.networks._arguments import integer
from structured_ensembles.networks.architectures._layers import he_initialise

MOST_WEIGHTS = 2**28
"""The largest first layer, 1 GB: a saved file could ask for any."""


def mlp(input_shape: tuple[int, int, int], classes: int, width: int = 128, depth: int = 2) -> nn.Module:
    """Flatten, then ``depth`` hidden layers of ``width`` channels with ReLU: (B, C, H, W) to logits (B, K).

    Raises:
        SettingsError: ``width`` is not in 1 to 4096, or ``depth`` not in 1 to 16.
        NetworkError: The images are so large that the first layer alone would take more than 1 GB.
    """
    integer("width", width, 1, 4096)
    integer("depth", depth, 1, 16)
    inputs = math.prod(input_shape)
    if inputs * width > MOST_WEIGHTS:
        raise NetworkError(
            f"the first layer of mlp would have {inputs} x {width} weights, more than {MOST_WEIGHTS}: "
            "use a smaller width, smaller images or 'small_cnn'."
        )
    layers: list[nn.Module] = [nn.Flatten()]
    for position in range(depth):
        layers += [nn.Linear(width if position else inputs, width), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(width, classes))
    he_initialise(network)
    return network
