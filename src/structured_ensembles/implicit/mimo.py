"""MIMO, one network that answers several inputs at once: Havasi et al. 2021, https://arxiv.org/abs/2010.06610."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.networks import Given, NetworkSpec, build
from structured_ensembles.networks.spec import MOST_CHANNELS, MOST_CLASSES


def mimo(spec: NetworkSpec, members: int) -> nn.Module:
    """The architecture of ``spec`` with M inputs side by side in its channels and M outputs in its classes.

    In training mode each member gets the batch in an order of its own, drawn from torch's global generator, so that
    it learns to answer its own input and to ignore the others'. In evaluation mode all get the same input. In both the
    network maps (B, C, H, W) to (M, B, K), aligned with the inputs.

    Args:
        spec: Of the plain network; its normalisation is repeated for each member.
        members: M.

    Raises:
        SettingsError: ``members`` is below 1, or M times the channels or classes are more than a network may have.
        NetworkError: The architecture cannot be built for so many channels.
    """
    if members < 1:
        raise SettingsError(f"members {members} must be at least 1")
    channels, height, width = spec.input_shape
    _check("input channels", channels, members, MOST_CHANNELS)
    _check("classes", spec.classes, members, MOST_CLASSES)
    wide = replace(
        spec,
        input_shape=(members * channels, height, width),
        classes=members * spec.classes,
        mean=None if spec.mean is None else members * spec.mean,
        std=None if spec.std is None else members * spec.std,
    )
    try:
        network = build(wide)
    except NetworkError as error:
        raise NetworkError(f"mimo with {members} members needs {members * channels} input channels: {error}") from error
    return _Mimo(network, members)


def _check(what: str, count: int, members: int, most: int) -> None:
    if members * count > most:
        raise SettingsError(
            f"mimo needs {members} x {count} = {members * count} {what}, and a network may have {most}: "
            f"use at most {most // count} members."
        )


class _Mimo(nn.Module):
    """What `mimo` returns. As in the paper, the members' losses are added, not averaged.

    Args:
        network: Maps (B, M * C, H, W) to (B, M * K), member after member in both.
        members: M.
    """

    summed_loss = True

    def __init__(self, network: nn.Module, members: int) -> None:
        super().__init__()
        self.network, self.members = network, members

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) to logits (M, B, K)."""
        if not self.training:
            return self._answers(inputs.repeat(1, self.members, *[1] * (inputs.dim() - 2)))
        # Drawn on the CPU, so that the orders are the same on every device.
        drawn = [torch.randperm(len(inputs), device="cpu") for _ in range(self.members)]
        orders = torch.stack(drawn).to(inputs.device)
        answers = self._answers(torch.cat([inputs[order] for order in orders], dim=1))
        return torch.stack([mine[order.argsort()] for mine, order in zip(answers, orders, strict=True)])

    def _answers(self, mixed: Tensor) -> Tensor:
        """(B, M * C, H, W) to (M, B, K), each member in the order of its own inputs."""
        logits: Tensor = self.network(mixed)
        return logits.reshape(len(mixed), self.members, logits.shape[1] // self.members).transpose(0, 1)


def form(given: Given, members: int, **arguments: Any) -> nn.Module:  # noqa: ANN401 (of which there are none)
    """Of an architecture by name."""
    if not isinstance(given, NetworkSpec):
        raise NetworkError(
            "mimo rebuilds the network with M times the inputs and outputs, which takes an architecture by name: give "
            "a NetworkSpec, such as NetworkSpec('resnet20', (3, 32, 32), 10)"
        )
    return mimo(given, members, **arguments)
