"""BatchEnsemble for any network: Wen, Tran and Ba 2020, https://arxiv.org/abs/2002.06715.

Members share every weight matrix W and differ in two vectors per layer: member m computes with W times the outer
product of its output factors s_m and its input factors r_m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from structured_ensembles.channels import kinds
from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.implicit._layers import called_layers
from structured_ensembles.networks.given import converted
from structured_ensembles.networks.modules import put
from structured_ensembles.types import Side

Layer: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
"""What gets factors. Transposed convolutions do not: all members share them as they are."""


def with_rank_one_factors(network: nn.Module, members: int) -> nn.Module:
    """A network whose M members differ by rank-one factors in every convolution and every Linear layer.

    Member m's layer computes s_m * (W (r_m * x)) + b_m. The factors r (M, C_in) and s (M, C_out) start at random signs
    from torch's global generator, the biases b (M, C_out) at the layer's own, and W is the network's own. The bias is
    added after s: multiplied by random signs, a member would not start at the network's own.

    In training and in evaluation mode it maps (B, ...) to (M, B, K): every member sees every example. All else is
    shared by the members: as in the paper the normalisation layers, in training mode with the statistics of all
    members' examples together, and the projections of ``nn.MultiheadAttention``.

    Its method ``no_weight_decay()`` names the factors: weight decay would pull the signs to zero.

    Args:
        network: Maps (B, ...) to logits (B, K), the examples in the first dimension of every layer; taken over, not
            copied.
        members: M.

    Raises:
        SettingsError: ``members`` is below 1.
        NetworkError: No layer can have factors, or one is lazy or is read without being called; the message names it.
            In a pass: a layer, or the output, does not hold the M * B examples in its first dimension.
    """
    if members < 1:
        raise SettingsError(f"members {members} must be at least 1")
    return _RankOneNetwork(network, members)


@dataclass
class _Rows:
    """What the layers must know of the pass that is under way: M * B; between passes M."""

    count: int


class RankOne(nn.Module):
    """One layer with factors and biases of M members.

    Args:
        layer: Its bias is taken off.
        members: M.
        name: Of the layer, for errors.
        rows: Shared by the layers of one network.

    Attributes:
        r: (M, C_in), multiply the inputs.
        s: (M, C_out), multiply the outputs.
        bias: (M, C_out), or None where the layer has none.
    """

    def __init__(self, layer: Layer, members: int, name: str, rows: _Rows) -> None:
        super().__init__()
        self.layer, self.members, self.name, self.rows = layer, members, name, rows
        self.r = nn.Parameter(_signs(members, kinds.width(layer, Side.IN)).to(layer.weight))
        self.s = nn.Parameter(_signs(members, kinds.width(layer, Side.OUT)).to(layer.weight))
        bias = layer.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().repeat(members, 1), bias.requires_grad)
        layer.bias = None

    def forward(self, inputs: Tensor) -> Tensor:
        """(M * B, ...) to (M * B, ...), member after member."""
        if inputs.dim() < 2 or inputs.shape[0] % self.rows.count:
            raise NetworkError(
                f"layer {self.name!r} gets an input of shape {tuple(inputs.shape)}, which does not hold the "
                f"{self.rows.count} examples of all {self.members} members in its first dimension. Keep the batch "
                "there, for example with batch_first=True"
            )
        return self._by_member(self.layer(self._by_member(inputs, self.r)), self.s, self.bias)

    def _by_member(self, rows: Tensor, factors: Tensor, shift: Tensor | None = None) -> Tensor:
        """Multiply the channels of (M * B, ...) by each member's factors (M, C), and add its shift (M, C)."""
        spread = [1] * rows.dim()
        spread[kinds.channel_dimension(self.layer)] = factors.shape[1]
        blocks = rows.reshape(self.members, rows.shape[0] // self.members, *rows.shape[1:])
        blocks = blocks * factors.view(self.members, *spread)
        if shift is not None:
            blocks = blocks + shift.view(self.members, *spread)
        return blocks.flatten(0, 1)


class _RankOneNetwork(nn.Module):
    """What `with_rank_one_factors` returns."""

    def __init__(self, network: nn.Module, members: int) -> None:
        super().__init__()
        self.network, self.members, self.rows = network, members, _Rows(members)
        _convert(self, members, self.rows)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) to logits (M, B, K)."""
        examples = inputs.shape[0]
        self.rows.count = self.members * max(1, examples)
        try:
            logits = self.network(inputs.repeat(self.members, *[1] * (inputs.dim() - 1)))
        finally:
            self.rows.count = self.members
        if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != self.members * examples:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            msg = f"the network's output must be logits of shape (B, K) = ({self.members * examples}, K), but is {got}"
            raise NetworkError(msg)
        return logits.reshape(self.members, examples, logits.shape[1])

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay must leave alone: the factors."""
        layers = [name for name, module in self.named_modules() if isinstance(module, RankOne)]
        return {f"{name}.{factor}" for name in layers for factor in ("r", "s")}


def _convert(shared: _RankOneNetwork, members: int, rows: _Rows) -> None:
    """Put a `RankOne` in the place of every layer; one that has several names stays one module."""
    layers = called_layers(shared.network, "have factors")
    if not layers:
        raise NetworkError("the network has no convolution and no Linear layer that rank-one factors could multiply")
    converted: dict[nn.Module, RankOne] = {}
    for name, layer in layers.items():
        if layer not in converted:
            converted[layer] = RankOne(_built(layer, name), members, name, rows)
        put(shared, f"network.{name}".rstrip("."), converted[layer])


def _built(layer: nn.Module, name: str) -> Layer:
    """The layer, if it is of a known kind and has weights already."""
    if not isinstance(layer, Layer):
        raise NetworkError(f"layer {name!r} is a {type(layer).__name__}, which cannot have factors")
    if is_lazy(layer.weight):
        msg = f"layer {name!r} is lazy and has no weights yet"
        raise NetworkError(f"{msg}: run the network once on an example input first")
    return layer


def _signs(members: int, channels: int) -> Tensor:
    """(M, C) of -1 and 1, each as likely."""
    return 2 * torch.randint(2, (members, channels)) - 1


form = converted(with_rank_one_factors)
"""Of whatever makes a network."""
