"""Backbones: networks that end in features, which the heads of all tasks read."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from structured_ensembles.errors import NetworkError, first_line
from structured_ensembles.networks import NetworkSpec, build, modules


def backbone(spec: NetworkSpec) -> nn.Module:
    """The architecture of a name without its output layer: inputs (B, C, H, W) to features (B, d).

    Weights are drawn from torch's global generator.

    Args:
        spec: What to build; its number of classes does not matter.

    Raises:
        SettingsError: As `networks.build`.
        NetworkError: As `networks.build`, or the network does not end in a linear layer.
    """
    network = build(spec)
    name = _output_layer(network, torch.zeros(2, *spec.input_shape))
    if name is None:
        raise NetworkError(
            f"{spec.name} does not end in a linear layer that could be taken off: pass a module that gives features "
            "(B, d) or maps (B, C, H, W) instead of its name"
        )
    modules.put(network, name, nn.Identity())
    return network


def features_of(network: nn.Module, example: Tensor) -> tuple[int, ...]:
    """The shape of what a backbone gives for one example; the network is left as it was.

    Args:
        network: The backbone.
        example: Inputs (B, ...), on the backbone's device.

    Raises:
        NetworkError: It fails on the example, or gives something else than one tensor of B features.
    """
    try:
        with torch.no_grad(), modules.in_mode(network, training=False):
            output = network(example)
    except Exception as error:
        raise NetworkError(
            f"the backbone fails on inputs of shape {tuple(example.shape)}: {first_line(error)}"
        ) from error
    if not isinstance(output, Tensor) or output.dim() not in {2, 4} or len(output) != len(example):
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise NetworkError(f"the backbone gives {got}: it must give features (B, d) or maps (B, C, H, W)")
    return tuple(output.shape[1:])


def _output_layer(network: nn.Module, example: Tensor) -> str | None:
    """The name of the linear layer whose output is what the network returns."""
    outputs: dict[str, Any] = {}
    with torch.no_grad(), modules.in_mode(network, training=False), ExitStack() as hooks:
        for name, module in network.named_modules():
            if name and isinstance(module, nn.Linear):
                hook = module.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
                hooks.enter_context(hook)
        result = network(example)
    return next((name for name, output in outputs.items() if output is result), None)
