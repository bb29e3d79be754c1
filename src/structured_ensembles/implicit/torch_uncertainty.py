"""Packed-Ensembles and Masksembles, out of the layers and masks of torch-uncertainty: the only file that knows it.

The library loads Lightning, which takes seconds: it is imported where it is used.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds
from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.implicit import _packing
from structured_ensembles.implicit._layers import called_layers
from structured_ensembles.networks._arguments import integer, number
from structured_ensembles.networks.given import converted
from structured_ensembles.networks.modules import put
from structured_ensembles.types import Side

MOST_MEMBERS = 1024
MOST_GROUPS = 64
NARROWEST_MASKED = 10
"""Channels below which the library finds no M masks."""
MASKED = "be masked"
"""What is to be done with layers, for errors of `called_layers`."""
MOST_DRAWS = 20_000
"""Of masks for one layer: the library would search without end."""


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"torch_uncertainty.layers.{name}")
    except (ImportError, RuntimeError) as error:  # one made for another torch raises the latter
        raise SettingsError(
            f"packed and masksembles need a package: pip install 'structured-ensembles[compare]' ({error})"
        ) from error


# --- Packed-Ensembles -----------------------------------------------------------------------------------------------


def packed(network: nn.Module, members: int, *, alpha: float, gamma: int = 1) -> nn.Module:
    """M independent narrow networks in one, in grouped layers: Laurent et al. 2023, https://arxiv.org/abs/2210.09184.

    Each member has alpha / M of the plain network's channels, rounded to a multiple of gamma above 0: together some
    alpha ** 2 / M of its weights. The layers between the first and the last are cut into gamma further groups a member.
    The members read the same input and share nothing; all weights are drawn anew as `networks` draws them, normal with
    variance 2 / fan_in, fan_in being the member's own, and zero biases.

    In training and in evaluation mode the network maps (B, ...) to (M, B, K).

    Args:
        network: Of Conv2d, Linear and BatchNorm, plain or with residual connections; taken over, not copied.
        members: M.
        alpha: How many times wider than the plain network all members are together, at most 4 * M.
        gamma: Groups in a member's layers, at most 64; the library's lower limit on their width is off.

    Raises:
        SettingsError: A number is outside its limits, or the library is not installed.
        NetworkError: A layer cannot be packed so that members share nothing; the message names it.
    """
    integer("members", members, 1, MOST_MEMBERS)
    number("alpha", alpha, 1e-3, 4 * members)  # up to members four times as wide as the plain network
    widths = _Widths(members, alpha, integer("gamma", gamma, 1, MOST_GROUPS))
    library = _library("packed")
    for name, reading in _packing.readings(network).items():
        module = network.get_submodule(name)
        if isinstance(module, _packing.Layer):
            put(network, name, _drawn_as(module, _packed_layer(library, module, reading, widths)))
        elif isinstance(module, _packing.Norm):
            put(network, name, _drawn_as(module, _packed_norm(module, reading, widths)))
    return _Packed(network, members).train(network.training)


@dataclass(frozen=True)
class _Widths:
    """How wide a packed network is: the arguments of `packed`."""

    members: int
    alpha: float
    gamma: int

    def member(self, channels: int) -> int:
        """Of one member, where the plain network has ``channels``."""
        return self.gamma * max(1, round(channels * self.alpha / (self.members * self.gamma)))

    def read(self, width: int, reading: _packing.Reads) -> int:
        """Of all members, where the plain network reads ``width`` positions, each channel in one block of them."""
        return width if reading.first else self.members * self.member(reading.channels) * (width // reading.channels)


class _Packed(nn.Module):
    """What `packed` returns. Members share no weight: each one's loss must count as if it were trained on its own."""

    summed_loss = True

    def __init__(self, network: nn.Module, members: int) -> None:
        super().__init__()
        self.network, self.members = network, members

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) to logits (M, B, K)."""
        return _by_member(self.network(inputs), self.members, inputs.shape[0])


def _packed_layer(library: ModuleType, layer: _packing.Layer, reading: _packing.Reads, widths: _Widths) -> nn.Module:
    """The library's layer for widths that are all given: alpha, of which it truncates multiples, is spent already."""
    members, out = widths.members, kinds.width(layer, Side.OUT)
    options: dict[str, Any] = {
        "alpha": 1,
        "num_estimators": members,
        "gamma": 1 if reading.first or reading.last else widths.gamma,
        "bias": layer.bias is not None,
        "first": reading.first,
        "last": reading.last,
        "device": layer.weight.device,
        "dtype": layer.weight.dtype,
    }
    wide_in = widths.read(kinds.width(layer, Side.IN), reading)
    wide_out = out if reading.last else members * widths.member(out)  # the library multiplies the last one's by M
    if isinstance(layer, nn.Linear):
        linear: nn.Module = library.PackedLinear(wide_in, wide_out, **options)
        return linear
    for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode"):
        options[name] = getattr(layer, name)
    convolution: nn.Module = library.PackedConv2d(wide_in, wide_out, minimum_channels_per_group=1, **options)
    return convolution


def _packed_norm(norm: _packing.Norm, reading: _packing.Reads, widths: _Widths) -> nn.Module:
    """A fresh normalisation for the channels of all members."""
    options = {name: getattr(norm, name) for name in ("eps", "momentum", "affine", "track_running_stats")}
    fresh = type(norm)(widths.read(norm.num_features, reading), **options)
    return fresh if norm.weight is None else fresh.to(norm.weight)


@torch.no_grad()
def _drawn_as(plain: nn.Module, wide: nn.Module) -> nn.Module:
    """Give a packed layer initial values of the plain one's distribution, as a layer of a member's width has them.

    Values are drawn from the plain layer's own, times the root of its fan_in over a member's: the standard deviation
    of He, LeCun and PyTorch's own falls with that root, for weights and biases (`methods.narrow` counts on the same).
    """
    fan_ins = [_fan_in(plain), _fan_in(wide)]
    for name, values in wide.named_parameters():
        pool = plain.get_parameter(name.rpartition(".")[2]).flatten()
        drawn = pool[torch.randint(len(pool), values.shape, device=pool.device)]
        values.copy_(drawn * math.sqrt(fan_ins[0] / fan_ins[1]))
    return wide


def _fan_in(layer: nn.Module) -> int:
    """How many inputs one output reads; 1 for a normalisation."""
    weight = next((value for name, value in layer.named_parameters() if name.endswith("weight")), None)
    if weight is None or weight.dim() == 1:
        return 1
    return weight.shape[-1] if type(layer).__name__.endswith("Linear") else weight[0].numel()


def check_independent(network: nn.Module, example: Tensor) -> None:
    """Check on inputs (B, ...) that what `packed` returned has independent members; it is left as it was.

    Raises:
        NetworkError: Changing the first layer of member 0 changed the logits of another member.
    """
    changed = copy.deepcopy(network).eval()
    with torch.no_grad():
        before = changed(example)
        for module in changed.modules():
            if getattr(module, "first", False) and isinstance(weight := getattr(module, "weight", None), Tensor):
                rows = weight.flatten(0, 1) if weight.dim() == 3 else weight  # a PackedLinear has (1, M * C, C_in)
                rows[: len(rows) // len(before)].neg_()
        after = changed(example)
    if not torch.equal(before[1:], after[1:]):
        raise NetworkError("the members of this packed network are not independent: one's first layer reaches others")


# --- Masksembles ----------------------------------------------------------------------------------------------------


def masksembles(network: nn.Module, members: int, *, scale: float = 2.0, first: str | None = None) -> nn.Module:
    """Members that share all weights and see different channels: Durasov et al. 2021, https://arxiv.org/abs/2012.08334.

    M fixed binary masks multiply the input channels of every convolution and Linear layer but the first one.
    They are drawn by the library, seeded from torch's global generator, and stored as one byte a channel and member.
    Layers with fewer than 10 input channels, and the projections of ``nn.MultiheadAttention``, stay without.

    In training mode the network maps (B, ...) to (B, K): the batch is parted into M runs, as equal as B allows, and
    member m answers run m. In evaluation mode it maps (B, ...) to (M, B, K): every member answers every example.

    Args:
        network: Maps (B, ...) to logits (B, K), the examples in the first dimension of every layer; taken over, not
            copied, with its weights as they are.
        members: M.
        scale: How little the masks overlap, in [1.1, 6]: each keeps some 1 / (scale * (1 - (1 - 1 / scale) ** M)).
        first: Name of the layer that reads the network's input, which must not be masked; None: the first one defined.

    Raises:
        SettingsError: A number is outside its limits, or the library is not installed.
        NetworkError: No layer can be masked, or one is read without being called. In evaluation: the network's output
            is not (B, K).
    """
    integer("members", members, 1, MOST_MEMBERS)
    number("scale", scale, 1.1, 6)
    library = _library("masksembles")
    layers = _maskable(network, first)
    draws = _Draws(int(torch.randint(2**31, (1,), device="cpu")))
    with _drawing_from(library, draws):
        masked = {layer: _Masked(layer, _masks(library, draws, layer, members, scale)) for layer in layers.values()}
    for name, layer in layers.items():
        put(network, name, masked[layer])
    return _Masksembles(network, members).train(network.training)


class _Masked(nn.Module):
    """A layer whose input channels are masked by member.

    Args:
        layer: A convolution or a Linear layer.
        masks: (M, C), bool.
    """

    masks: Tensor

    def __init__(self, layer: nn.Module, masks: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("masks", masks)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, ...) to (N, ...): N examples in M runs, member after member, as equal as N allows."""
        rows = inputs.shape[0]
        members = torch.arange(rows, device=inputs.device) * len(self.masks) // max(1, rows)
        outputs: Tensor = self.layer(inputs * kinds.spread(self.layer, self.masks[members], inputs))
        return outputs


class _Masksembles(nn.Module):
    """What `masksembles` returns."""

    def __init__(self, network: nn.Module, members: int) -> None:
        super().__init__()
        self.network, self.members = network, members

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) to logits: (B, K) in training mode, (M, B, K) in evaluation mode."""
        if self.training:
            logits: Tensor = self.network(inputs)
            return logits
        return _by_member(
            self.network(inputs.repeat(self.members, *[1] * (inputs.dim() - 1))), self.members, inputs.shape[0]
        )


def _maskable(network: nn.Module, first: str | None) -> dict[str, nn.Module]:
    """By dotted name, the layers that get masks."""
    layers = called_layers(network, MASKED)
    if first is not None and first not in layers:
        raise NetworkError(f"there is no layer {first!r} in the network that could read its input")
    reading = layers[first] if first is not None else next(iter(layers.values()), None)
    wide = {
        name: layer
        for name, layer in layers.items()
        if layer is not reading and kinds.width(layer, Side.IN) >= NARROWEST_MASKED
    }
    if not wide:
        msg = (
            f"no layer of this network can be masked: none but the first has {NARROWEST_MASKED} input channels or more"
        )
        raise NetworkError(f"{msg}. Take a wider network or another method")
    return wide


class _EndlessError(Exception):
    """The library's search for masks has drawn more than it should need."""


class _Draws:
    """Stands in for the generator that the library takes from numpy unseeded, anew for each set of masks."""

    def __init__(self, seed: int) -> None:
        self.generator, self.left = np.random.default_rng(seed), MOST_DRAWS

    def choice(self, positions: range, size: int, *, replace: bool) -> Any:  # noqa: ANN401 (an array of numpy)
        """``size`` of the positions, which start at 0."""
        self.left -= 1
        if self.left < 0:
            raise _EndlessError
        return self.generator.choice(len(positions), size, replace=replace, shuffle=False)


@contextmanager
def _drawing_from(library: ModuleType, draws: _Draws) -> Iterator[None]:
    """Within the block, the library's masks come from ``draws``; numpy itself is left alone for everybody else."""
    names = vars(library)
    numpy = names["np"]
    random = SimpleNamespace(default_rng=lambda: draws)
    names["np"] = SimpleNamespace(zeros=np.zeros, array=np.array, all=np.all, random=random)
    try:
        yield
    finally:
        names["np"] = numpy


def _masks(library: ModuleType, draws: _Draws, layer: nn.Module, members: int, scale: float) -> Tensor:
    """(M, C) for the input channels of a layer, bool, on its device."""
    width, device = kinds.width(layer, Side.IN), next(layer.parameters()).device
    if members == 1:  # the library's formula gives one mask all channels, but rounds to one fewer and never ends
        return torch.ones(1, width, dtype=torch.bool, device=device)
    draws.left = MOST_DRAWS
    try:
        masks = library.generation_wrapper(width, members, scale)
    except _EndlessError as error:
        msg = f"no {members} masks of scale {scale:g} were found for the {width} input channels of {layer}"
        raise NetworkError(f"{msg}: change the scale or the number of members") from error
    return torch.from_numpy(masks).to(device, torch.bool)


# --- both -----------------------------------------------------------------------------------------------------------


def _by_member(logits: object, members: int, examples: int) -> Tensor:
    """(M * B, K), member after member, to (M, B, K)."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != members * examples:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise NetworkError(f"the network's output must be logits (B, K) = ({members * examples}, K), but is {got}")
    return logits.reshape(members, examples, logits.shape[1])


packed_form, masked_form = converted(packed), converted(masksembles)
"""Of whatever makes a network."""
