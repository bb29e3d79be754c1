"""Who owns what: channels by task, and what follows for every single weight.

A weight has two ends: its row is the channel that it makes, its column the channel that it reads. What no group covers,
such as the channels of an image, is always there, as if the first task owned it.

Shapes: C channels of one group; R rows and J columns of a weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds, surgery
from structured_ensembles.continual.learner.units import BACKBONE
from structured_ensembles.options.choices import CrossBlock, Norms
from structured_ensembles.types import Channels, Group, Side

Owners: TypeAlias = Mapping[str, Tensor]
"""By group, the task that owns each channel, or `NOBODY`: (C,), int64."""

NOBODY = -1


class Ends(NamedTuple):
    """The owners of a tensor's entries, both of shapes that broadcast to the tensor's.

    Attributes:
        row: Of the channel that the entry makes.
        column: Of the channel that it reads; the same as ``row`` where there is no such thing.
    """

    row: Tensor
    column: Tensor


def read_by_head(network: nn.Module, groups: Sequence[Group], channels: Channels) -> dict[str, Tensor]:
    """By module of a task network's head that reads channels of the backbone, the positions of these ones: bool."""
    kept = surgery.kept_positions(network, groups, channels)
    return {name: mask for (name, side), mask in kept.items() if side is Side.IN and not name.startswith(BACKBONE)}


def unowned(groups: Sequence[Group]) -> dict[str, Tensor]:
    """The owners before the first task."""
    return {group.name: torch.full((group.channels,), NOBODY) for group in groups}


def free(owners: Owners) -> Channels:
    """The channels that nobody owns."""
    return {name: (owner == NOBODY).nonzero().flatten() for name, owner in owners.items()}


def active(owners: Owners, task: int) -> Channels:
    """The channels that a task uses: its own, and those of all tasks before it."""
    return {name: _of(owner, task).nonzero().flatten() for name, owner in owners.items()}


def claimed(owners: Owners, channels: Channels, task: int) -> dict[str, Tensor]:
    """The owners after a task has taken channels."""
    after = {name: owner.clone() for name, owner in owners.items()}
    for name, taken in channels.items():
        after[name][taken] = task
    return after


def _of(owner: Tensor, task: int) -> Tensor:
    return (owner >= 0) & (owner <= task)


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of a task network's backbone, saved ones or not."""
    return of_backbone(network.get_submodule(BACKBONE.removesuffix(".")))


def of_backbone(backbone: nn.Module) -> dict[str, Tensor]:
    """The same of a backbone by itself, by the same names."""
    return {BACKBONE + name: tensor for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers())}


def norm_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The parameters and statistics of the normalisation layers of a task network's backbone."""
    norms = {name: module for name, module in network.named_modules() if kinds.is_norm(module)}
    names = {f"{name}.{leaf}" for name, module in norms.items() for leaf in kinds.tensors(module, Side.OUT)}
    return {name: tensor for name, tensor in tensors(network).items() if name in names}


def ends(network: nn.Module, groups: Sequence[Group], owners: Owners) -> dict[str, Ends]:
    """Who owns the entries of each tensor of the backbone that has channels; the other tensors never change."""
    sites = surgery.laid_out(network, groups, owners, 0)
    found = {}
    for name, tensor in tensors(network).items():
        module_name, _, leaf = name.rpartition(".")
        module = network.get_submodule(module_name)
        if leaf not in kinds.tensors(module, Side.OUT):
            continue
        row = sites[module_name, Side.OUT].view(-1, *[1] * (tensor.dim() - 1))
        column = row
        # The channels that a grouped convolution reads are tied to those that it makes.
        if kinds.has_inputs(module) and leaf in kinds.tensors(module, Side.IN):
            reads = sites.get((module_name, Side.IN), torch.zeros(tensor.shape[1], dtype=torch.int64))
            column = reads.view(1, -1, *[1] * (tensor.dim() - 2))
        found[name] = Ends(row, column)
    return found


def used(of: Ends, task: int) -> Tensor:
    """The entries that a task's answers depend on."""
    return _of(of.row, task) & _of(of.column, task)


def stored(of: Ends, rule: CrossBlock) -> Tensor:
    """The entries that some task's answers depend on; under ZERO those that are known to be zero are not among them."""
    owned = (of.row >= 0) & (of.column >= 0)
    return owned & (of.column <= of.row) if rule is CrossBlock.ZERO else owned


def cut_off(of: Ends, task: int) -> Tensor:
    """The entries of the rows of a task whose columns it does not use."""
    return (of.row == task) & ~_of(of.column, task)


def trainable(
    network: nn.Module, all_ends: Mapping[str, Ends], task: int, rule: CrossBlock, norms: Norms
) -> dict[str, Tensor]:
    """The entries that may change while a task is learned: bool, broadcast to each tensor.

    Args:
        network: A task network.
        all_ends: What `ends` says of it, the task's own channels included.
        task: Which one is learned.
        rule: What becomes of weights from newer to older channels.
        norms: Whose the normalisation layers are.
    """
    own = {name: _may_change(of, task, rule) for name, of in all_ends.items()}
    if norms is Norms.TASK:
        own |= {name: _of(all_ends[name].row, task) for name in norm_tensors(network)}
    return own


def _may_change(of: Ends, task: int, rule: CrossBlock) -> Tensor:
    if rule is CrossBlock.TRAINABLE:
        return (torch.maximum(of.row, of.column) == task) & (of.row >= 0) & (of.column >= 0)
    return (of.row == task) & _of(of.column, task)
