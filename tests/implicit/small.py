"""Small networks with random statistics, and images for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structured_ensembles.networks import NetworkSpec, build

SHAPE = (3, 16, 16)
ARCHITECTURES = ("mlp", "lenet5", "small_cnn", "small_vgg", "resnet20")


def network_of(name: str, **arguments: str) -> nn.Module:
    return build(NetworkSpec(name, SHAPE, 10, arguments, mean=(0.5,) * 3, std=(0.25,) * 3))


def images(batch: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(seed))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def shift_statistics(network: nn.Module) -> None:
    """Running statistics that differ by channel, as after training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
