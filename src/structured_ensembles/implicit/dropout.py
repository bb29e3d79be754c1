"""Monte Carlo dropout for any network: Gal and Ghahramani 2016, https://arxiv.org/abs/1506.02142.

As published: dropout after every convolution and every hidden Linear layer, on in training and in prediction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from structured_ensembles.channels import kinds
from structured_ensembles.errors import NetworkError, SettingsError, first_line, unknown
from structured_ensembles.implicit._layers import ran
from structured_ensembles.networks._arguments import integer, number
from structured_ensembles.networks.given import converted
from structured_ensembles.seeding import derived_seed


def with_dropout(
    network: nn.Module, members: int, *, output: str, probability: float = 0.25, seed: int = 0
) -> nn.Module:
    """A network that answers with M samples of its dropout.

    In training mode it returns (B, K), with ordinary dropout from torch's global generator. In evaluation mode it
    returns (M, B, K): sample m drops, in each layer, the same elements for all examples and all calls, drawn from
    ``seed``, m and the layer (consistent MC dropout: Kirsch, van Amersfoort and Gal 2019,
    https://arxiv.org/abs/1906.08158), so that an answer does not depend on the rest of its batch.

    The dropout modules that the network has of its own stay off in evaluation mode. Transposed convolutions and the
    projections inside ``nn.MultiheadAttention``, which never run as layers, get no dropout.

    Args:
        network: Maps (B, ...) to logits (B, K), the examples in the first dimension of every layer; taken over, not
            copied. Its parameters keep their names behind the prefix ``network``.
        members: M, how many samples.
        output: Dotted name of the output layer, which gets no dropout; `output_layer` finds it.
        probability: The share of elements that are dropped, in [0, 1).
        seed: Of the masks in evaluation mode.

    Raises:
        SettingsError: A number is outside its limits, or no layer has the name ``output``.
        NetworkError: The network has no layer but its output layer. In a pass: a layer does not hold the examples in
            its first dimension.
    """
    if members < 1:
        raise SettingsError(f"members {members} must be at least 1")
    if number("probability", probability, 0, 1) == 1:
        raise SettingsError("probability 1 would drop everything: it must be below 1")
    integer("seed", seed, 0, 2**63 - 1)
    return _Dropout(network, _hidden_layers(network, output), members, probability, seed)


def output_layer(network: nn.Module, example: Tensor) -> str:
    """The dotted name of the last convolution or Linear layer that runs on an example (B, ...).

    The network and the global generators are left as they were.

    Raises:
        NetworkError: The network fails on the example, or no such layer runs.
    """
    try:
        order = ran(network, _layers(network), example)
    except Exception as error:
        msg = f"the network fails on an example input of shape {tuple(example.shape)}: {first_line(error)}"
        raise NetworkError(msg) from error
    if not order:
        raise NetworkError("the network runs no convolution and no Linear layer, after which dropout could be put")
    return order[-1]


@dataclass
class _Pass:
    """The pass that is under way: one object, which all hooks of a network look at.

    Attributes:
        examples: B.
        member: The sample that is asked for; None for ordinary dropout.
    """

    examples: int = 1
    member: int | None = None

    @contextmanager
    def under_way(self, examples: int, member: int | None) -> Iterator[None]:
        self.examples, self.member = max(1, examples), member
        try:
            yield
        finally:
            self.examples, self.member = 1, None


@dataclass(frozen=True)
class _Drop:
    """A forward hook that drops elements of its layer's output.

    An object without references to modules: ``copy.deepcopy`` of the network gives each copy hooks of its own.
    """

    name: str
    probability: float
    seeds: tuple[int, ...]
    current: _Pass

    def __call__(self, module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        examples, rows = self.current.examples, output.shape[0]
        if rows % examples:
            raise NetworkError(
                f"layer {self.name!r} turns a batch of {examples} into {rows} rows: its examples cannot be "
                "told apart. Keep the batch in the first dimension, for example with batch_first=True"
            )
        if self.current.member is None:
            return functional.dropout(output, self.probability, training=module.training)
        return output * self._mask(output, self.seeds[self.current.member])

    def _mask(self, output: Tensor, seed: int) -> Tensor:
        """(1, ...): 0, or what keeps the mean; drawn on the CPU, so that it is the same on every device."""
        generator = torch.Generator(device="cpu").manual_seed(seed)
        drawn = torch.rand(1, *output.shape[1:], generator=generator, device="cpu")
        return ((drawn >= self.probability) / (1 - self.probability)).to(output)


class _Dropout(nn.Module):
    """What `with_dropout` returns."""

    def __init__(
        self, network: nn.Module, layers: dict[str, nn.Module], members: int, probability: float, seed: int
    ) -> None:
        super().__init__()
        self.network, self.members, self.current = network, members, _Pass()
        self.drawn = f"probability={probability}, seed={seed}"
        for position, (name, layer) in enumerate(layers.items()):
            seeds = tuple(derived_seed(seed, member, position) for member in range(members))
            layer.register_forward_hook(_Drop(name, probability, seeds, self.current))

    def extra_repr(self) -> str:
        """What its weights do not show."""
        return self.drawn

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) to logits: (B, K) in training mode, (M, B, K) in evaluation mode."""
        if self.training:
            return self._answer(inputs, None)
        return torch.stack([self._answer(inputs, member) for member in range(self.members)])

    def _answer(self, inputs: Tensor, member: int | None) -> Tensor:
        with self.current.under_way(inputs.shape[0], member):
            logits: Tensor = self.network(inputs)
        return logits


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if kinds.is_layer(module)}


def _hidden_layers(network: nn.Module, output: str) -> dict[str, nn.Module]:
    """Every layer but the output layer, by name."""
    layers = _layers(network)
    if output not in layers:
        raise unknown("output layer", str(output), layers)
    del layers[output]
    if not layers:
        raise NetworkError(f"the network has no layer but its output layer {output!r}: there is nothing to drop")
    return layers


form = converted(with_dropout)
"""Of whatever makes a network."""
