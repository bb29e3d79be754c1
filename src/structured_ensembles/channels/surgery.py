"""Cutting channels out of a network, and switching the same channels off instead.

``cut`` makes tensors smaller; ``zeroed`` leaves them and forces the removed channels to zero where they are read.
In evaluation mode both must compute the same: the invariant that topology checks before it offers a group.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from structured_ensembles.networks.modules import copied
from structured_ensembles.types import Channels, Cut, Group, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Site: TypeAlias = tuple[str, Side]
"""A module's dotted name and one of its dimensions."""


def is_convolution(module: nn.Module) -> bool:
    """Whether ``module`` is a convolution that can be cut (transposed ones cannot)."""
    return isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd)


def is_grouped(module: nn.Module) -> bool:
    """Whether ``module`` is a grouped (or depthwise) convolution: its inputs and outputs live or die together."""
    return convolution_groups(module) > 1


def convolution_groups(module: nn.Module) -> int:
    """Into how many groups a convolution divides its channels; 1 for anything else."""
    return module.groups if isinstance(module, _ConvNd) else 1


def is_layer(module: nn.Module) -> bool:
    """Whether ``module`` makes new channels out of others: a convolution or a Linear layer."""
    return is_convolution(module) or isinstance(module, nn.Linear)


def is_norm(module: nn.Module) -> bool:
    """Whether ``module`` normalises each channel on its own, so that channels can be cut out of it."""
    return isinstance(module, _NormBase)


def can_cut(module: nn.Module) -> bool:
    """Whether channels can be cut out of ``module``."""
    return is_layer(module) or is_norm(module) or isinstance(module, nn.PReLU)


def width(module: nn.Module, side: Side) -> int:
    """Positions in one dimension of a module that ``can_cut`` accepts."""
    if isinstance(module, _ConvNd):
        return module.out_channels if side is Side.OUT else module.in_channels
    if isinstance(module, nn.Linear):
        return module.out_features if side is Side.OUT else module.in_features
    return module.num_features if isinstance(module, _NormBase) else _prelu(module).num_parameters


def channel_dimension(module: nn.Module) -> int:
    """The dimension of the module's input and output that holds its channels."""
    return -1 if isinstance(module, nn.Linear) else 1


def positions(cut: Cut, flags: Tensor) -> Tensor:
    """Per-channel values (..., C) of a group laid out over the positions of one cut: (..., C * repeat)."""
    return flags.repeat_interleave(cut.repeat, dim=-1)


def kept_positions(network: nn.Module, groups: Iterable[Group], channels: Channels) -> dict[Site, Tensor]:
    """Which positions of every cut dimension survive.

    Args:
        network: The uncut network.
        groups: Groups of its topology; those that ``channels`` does not name keep everything.
        channels: By group name, the kept channels.

    Returns:
        By site, a bool tensor over all of its positions. Several groups may meet in one dimension (concatenation).
    """
    kept: dict[Site, Tensor] = {}
    for group in groups:
        if group.name not in channels:
            continue
        flags = torch.zeros(group.channels, dtype=torch.bool)
        flags[channels[group.name].cpu()] = True
        for cut in group.cuts:
            module = network.get_submodule(cut.module)
            mask = kept.setdefault((cut.module, cut.side), torch.ones(width(module, cut.side), dtype=torch.bool))
            mask[cut.offset : cut.offset + group.channels * cut.repeat] = positions(cut, flags)
    return kept


def cut(network: nn.Module, groups: Iterable[Group], channels: Channels) -> nn.Module:
    """A copy of ``network`` with only the kept channels: smaller tensors, not zeros.

    Tensors that lose nothing are shared with ``network``; ``extraction.extract`` gives members of their own.

    Args:
        network: The uncut network; it is left as it is.
        groups: Groups of its topology.
        channels: By group name, the kept channels.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    smaller = copied(network, shared)
    for (name, side), mask in kept_positions(network, groups, channels).items():
        _narrow(smaller.get_submodule(name), side, mask.nonzero().flatten())
    return smaller


def narrowed(network: nn.Module, groups: Iterable[Group], channels: Channels) -> tuple[Group, ...]:
    """The groups of what `cut` gives: fewer channels, and where several meet in one dimension, in other places.

    Args:
        network: The uncut network.
        groups: Groups of its topology.
        channels: By group name, the kept channels, of every group.
    """
    groups = tuple(groups)
    kept = kept_positions(network, groups, channels)

    def moved(cuts: Iterable[Cut]) -> tuple[Cut, ...]:
        return tuple(replace(cut, offset=int(kept[cut.module, cut.side][: cut.offset].sum())) for cut in cuts)

    return tuple(
        replace(
            group,
            channels=len(channels[group.name]),
            cuts=moved(group.cuts),
            scaled={placement: moved(cuts) for placement, cuts in group.scaled.items()},
        )
        for group in groups
    )


@contextmanager
def zeroed(network: nn.Module, groups: Iterable[Group], channels: Channels) -> Iterator[None]:
    """Within the block, the removed channels are zero at the input of every layer that reads them."""
    hooks = []
    for (name, side), mask in kept_positions(network, groups, channels).items():
        module = network.get_submodule(name)
        if side is Side.IN:
            hooks.append(module.register_forward_pre_hook(_keep_only(mask, channel_dimension(module))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _keep_only(mask: Tensor, dimension: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first, *rest = inputs
        shape = [1] * first.dim()
        shape[dimension] = -1
        # `where`, not a product: zero times infinity is not zero.
        return (first.where(mask.to(first.device).view(shape), torch.zeros_like(first)), *rest)

    return hook


def _narrow(module: nn.Module, side: Side, index: Tensor) -> None:
    if isinstance(module, _ConvNd):
        _narrow_convolution(module, side, index)
    elif isinstance(module, nn.Linear):
        _narrow_linear(module, side, index)
    elif isinstance(module, _NormBase):
        module.num_features = len(index)
        _select(module, {"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0}, index)
    else:
        _prelu(module).num_parameters = len(index)
        _select(module, {"weight": 0}, index)


def _narrow_convolution(module: _ConvNd, side: Side, index: Tensor) -> None:
    if side is Side.IN:
        module.in_channels = len(index)
        _select(module, {"weight": 1}, index)
        return
    if module.groups > 1:
        per_group = module.out_channels // module.groups
        in_per_group = module.in_channels // module.groups
        module.groups = len(index) // per_group
        module.in_channels = module.groups * in_per_group
    module.out_channels = len(index)
    _select(module, {"weight": 0, "bias": 0}, index)


def _narrow_linear(module: nn.Linear, side: Side, index: Tensor) -> None:
    if side is Side.IN:
        module.in_features = len(index)
        _select(module, {"weight": 1}, index)
    else:
        module.out_features = len(index)
        _select(module, {"weight": 0, "bias": 0}, index)


def _select(module: nn.Module, dimensions: Mapping[str, int], index: Tensor) -> None:
    """Keep ``index`` in the named dimension of each of the module's own tensors that it has."""
    for name, dimension in dimensions.items():
        tensor = getattr(module, name)
        if tensor is None:
            continue
        kept = tensor.detach().index_select(dimension, index.to(tensor.device))
        if isinstance(tensor, nn.Parameter):
            setattr(module, name, nn.Parameter(kept, requires_grad=tensor.requires_grad))
        else:
            setattr(module, name, kept)


def _prelu(module: nn.Module) -> nn.PReLU:
    if not isinstance(module, nn.PReLU):
        msg = f"{type(module).__name__} has no channels to cut"
        raise TypeError(msg)
    return module
