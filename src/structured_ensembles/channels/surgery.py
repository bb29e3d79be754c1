"""Cutting channels out of a network, and switching the same channels off instead.

``cut`` makes tensors smaller; ``zeroed`` leaves them and forces the removed channels to zero where they are read.
In evaluation mode both must compute the same: the invariant that topology checks before it offers a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds
from structured_ensembles.networks.modules import copied
from structured_ensembles.types import Channels, Cut, Group, Side

Site: TypeAlias = tuple[str, Side]
"""A module's dotted name and one of its dimensions."""


def positions(cut: Cut, flags: Tensor) -> Tensor:
    """Per-channel values (..., C) of a group laid out over the positions of one cut: (..., C * repeat)."""
    return flags.repeat_interleave(cut.repeat, dim=-1)


def laid_out(
    network: nn.Module, groups: Iterable[Group], values: Mapping[str, Tensor], elsewhere: int
) -> dict[Site, Tensor]:
    """What channels have, at all positions of every dimension that their groups occupy.

    Args:
        network: The uncut network.
        groups: Groups of its topology.
        values: By group, one for each channel (C,); groups that it does not name are left out.
        elsewhere: The value of positions that belong to none of these groups.

    Returns:
        By site, values of the same type. Several groups may meet in one dimension (concatenation).
    """
    sites: dict[Site, Tensor] = {}
    for group in groups:
        if group.name not in values:
            continue
        own = values[group.name]
        for cut in group.cuts:
            width = kinds.width(network.get_submodule(cut.module), cut.side)
            there = sites.setdefault((cut.module, cut.side), own.new_full((width,), elsewhere))
            there[cut.offset : cut.offset + group.channels * cut.repeat] = positions(cut, own)
    return sites


def kept_positions(network: nn.Module, groups: Iterable[Group], channels: Channels) -> dict[Site, Tensor]:
    """Which positions of every cut dimension survive: bool, by site.

    Args:
        network: The uncut network.
        groups: Groups of its topology; those that ``channels`` does not name keep everything.
        channels: By group name, the kept channels.
    """
    groups = tuple(groups)
    flags = {group.name: torch.zeros(group.channels, dtype=torch.bool) for group in groups if group.name in channels}
    for name, own in flags.items():
        own[channels[name].cpu()] = True
    return laid_out(network, groups, flags, True)


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
    with ExitStack() as hooks:
        for (name, side), mask in kept_positions(network, groups, channels).items():
            if side is Side.IN:
                hooks.enter_context(network.get_submodule(name).register_forward_pre_hook(_keep_only(mask)))
        yield


def _keep_only(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first, *rest = inputs
        # `where`, not a product: zero times infinity is not zero.
        return (first.where(kinds.spread(module, mask.to(first.device), first), torch.zeros_like(first)), *rest)

    return hook


def _narrow(module: nn.Module, side: Side, index: Tensor) -> None:
    """Keep ``index`` on one side of a module, in each of its own tensors that it has there."""
    kinds.resize(module, side, len(index))
    for name in kinds.tensors(module, side):
        tensor = getattr(module, name)
        if tensor is None:
            continue
        kept = tensor.detach().index_select(0 if side is Side.OUT else 1, index.to(tensor.device))
        if isinstance(tensor, nn.Parameter):
            setattr(module, name, nn.Parameter(kept, requires_grad=tensor.requires_grad))
        else:
            setattr(module, name, kept)
