"""The layers of a network that a form can take hold of."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds
from structured_ensembles.errors import NetworkError
from structured_ensembles.networks.modules import in_mode
from structured_ensembles.seeding import seeded


def called_layers(network: nn.Module, purpose: str) -> dict[str, nn.Module]:
    """By dotted name, every convolution and Linear layer that runs by being called, under all of its names.

    The projections of ``nn.MultiheadAttention`` do not, and are left out.

    Args:
        network: Whose layers.
        purpose: What is to be done with them, for the error: "be masked".

    Raises:
        NetworkError: A module reads the weights of such layers without calling them.
    """
    layers: dict[str, nn.Module] = {}
    attention: tuple[str, ...] = ()
    for name, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, nn.TransformerEncoderLayer):
            msg = f"layer {name!r} (TransformerEncoderLayer) reads the weights of its layers without calling them"
            raise NetworkError(f"{msg}, so that they cannot {purpose}: write the block out")
        if isinstance(module, nn.MultiheadAttention):
            attention += (f"{name}.",)
        elif kinds.is_layer(module) and not name.startswith(attention):
            layers[name] = module
    return layers


def first_called(network: nn.Module, example: Tensor, purpose: str) -> str:
    """The dotted name of the layer of `called_layers` that runs first; the first defined one if none does.

    Args:
        network: Left as it is.
        example: Inputs (B, ...), on the network's device.
        purpose: As `called_layers` takes it.
    """
    layers = called_layers(network, purpose)
    return next(iter([*ran(network, layers, example), *layers]), "")


def ran(network: nn.Module, layers: Mapping[str, nn.Module], example: Tensor) -> list[str]:
    """The names of layers in the order in which they run on an example, in evaluation mode.

    Args:
        network: It and the global generators are left as they were.
        layers: By the names that are given back.
        example: Inputs (B, ...), on the network's device.
    """
    order: list[str] = []
    with torch.no_grad(), seeded(0), in_mode(network, training=False), ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(lambda *_, name=name: order.append(name)))
        network(example)
    return order
