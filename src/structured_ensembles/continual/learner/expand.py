"""Growth: more channels for every group, when no task has left any free.

Channels are appended, so that those that tasks own stay what they are. A task keeps the widths that it was learned
with (`state.as_learned`): its answers stay the same, to the bit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds, surgery
from structured_ensembles.channels.surgery import Site
from structured_ensembles.continual.learner import ownership
from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.learner.state import State, whole, widths_of
from structured_ensembles.errors import NetworkError, first_line
from structured_ensembles.options.choices import Capacity, CrossBlock
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.seeding import seeded
from structured_ensembles.types import Cut, Group, Side

GROWTH = 0.5
"""So many channels are added for each that a group has."""


class Place(NamedTuple):
    """One dimension after growth.

    Attributes:
        width: How many positions it has.
        old: (W,), where each of the W positions that it had before is now.
    """

    width: int
    old: Tensor


def grown(groups: Sequence[Group], settings: ContinualSettings) -> dict[str, int]:
    """By group, how many channels it gets when none is free: half as many again, or what a task takes if that is more.

    Args:
        groups: As they are.
        settings: What a task takes.
    """
    least = settings.channels if settings.capacity is Capacity.FIXED else 1
    return {group.name: group.channels + max(least, math.ceil(group.channels * GROWTH)) for group in groups}


def expanded(state: State, settings: ContinualSettings, seed: int) -> State:
    """The state with room for another task (`grown`, `widened`)."""
    return widened(state, grown(state.groups, settings), settings.cross_block, seed)


@torch.no_grad()
def widened(state: State, widths: Mapping[str, int], rule: CrossBlock, seed: int) -> State:
    """The state with more channels, which nobody owns; what there was is the same, to the bit.

    Args:
        state: Of at least one task; it is left as it is.
        widths: By group, how many channels it shall have, at least as many as now.
        rule: What becomes of weights from newer to older channels.
        seed: Of the weights of the new channels.

    Raises:
        NetworkError: Some part of the backbone does not work with more channels; the message names it.
    """
    backbone, heads = copy.deepcopy(state.backbone), copy.deepcopy(state.heads)
    networks = [TaskNetwork(backbone, head) for head in heads]
    places = _places(networks[0], state.groups, widths)
    with seeded(seed):
        for name in sorted({name for name, _ in places}):
            # Of the backbone's modules there is one, of the heads' one for each task.
            for module in dict.fromkeys(network.get_submodule(name) for network in networks):
                _widen(module, places.get((name, Side.OUT)), places.get((name, Side.IN)))
    after = replace(
        state,
        backbone=backbone,
        heads=heads,
        groups=tuple(_moved(group, widths[group.name], places) for group in state.groups),
        owners={name: _longer(owner, widths[name]) for name, owner in state.owners.items()},
        widths=state.widths or (widths_of(state.groups),) * len(state.tasks),
    )
    after = replace(after, norms=tuple(_norms(after, own, places) for own in state.norms))
    if rule is CrossBlock.ZERO:
        _cut_off(after, networks[0])
    _check(after)
    return after


def _places(network: nn.Module, groups: Sequence[Group], widths: Mapping[str, int]) -> dict[Site, Place]:
    """Every dimension that grows: new positions come right after those that their group has there."""
    added: dict[Site, Tensor] = {}
    for group in groups:
        for cut in group.cuts:
            width = kinds.width(network.get_submodule(cut.module), cut.side)
            before = added.setdefault((cut.module, cut.side), torch.zeros(width + 1, dtype=torch.int64))
            before[cut.offset + group.channels * cut.repeat] += (widths[group.name] - group.channels) * cut.repeat
    return {
        site: Place(len(before) - 1 + int(before.sum()), torch.arange(len(before) - 1) + before.cumsum(0)[:-1])
        for site, before in added.items()
    }


def _moved(group: Group, channels: int, places: Mapping[Site, Place]) -> Group:
    """The group in the grown network."""

    def moved(cuts: Sequence[Cut]) -> tuple[Cut, ...]:
        found = [places.get((cut.module, cut.side)) for cut in cuts]
        return tuple(
            cut if place is None else replace(cut, offset=int(place.old[cut.offset]))
            for cut, place in zip(cuts, found, strict=True)
        )

    scaled = {placement: moved(cuts) for placement, cuts in group.scaled.items()}
    return replace(group, channels=channels, cuts=moved(group.cuts), scaled=scaled)


def _longer(owner: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(owner, (0, width - len(owner)), value=ownership.NOBODY)


def _norms(state: State, own: Mapping[str, Tensor], places: Mapping[Site, Place]) -> dict[str, Tensor]:
    """A task's own normalisation tensors, with fresh values for new channels."""
    fresh = ownership.tensors(TaskNetwork(state.backbone, nn.Identity()))
    longer = {}
    for name, values in own.items():
        longer[name] = fresh[name].detach().clone()
        longer[name][_rows(name, places, len(values))] = values
    return longer


def _rows(name: str, places: Mapping[Site, Place], width: int) -> Tensor:
    place = places.get((name.rpartition(".")[0], Side.OUT))
    return torch.arange(width) if place is None else place.old


def _widen(module: nn.Module, rows: Place | None, columns: Place | None) -> None:
    """Give a module new positions, initialised as by torch; it is changed in place."""
    read = kinds.tensors(module, Side.IN)
    before = {name: getattr(module, name) for name in kinds.tensors(module, Side.OUT)}
    before = {name: tensor for name, tensor in before.items() if tensor is not None}
    for side, place in ((Side.OUT, rows), (Side.IN, columns)):
        if place:
            kinds.resize(module, side, place.width)
    for name, tensor in before.items():
        shape = [rows.width if rows else tensor.shape[0], *tensor.shape[1:]]
        if columns and name in read:
            shape[1] = columns.width
        _set(module, name, tensor.new_empty(shape))
    module.reset_parameters()  # type: ignore[operator]  # every layer that can be cut has it
    for name, tensor in before.items():
        here = getattr(module, name)
        row = rows.old if rows else torch.arange(tensor.shape[0])
        if columns and name in read:
            here[row[:, None], columns.old] = tensor
        else:
            here[row] = tensor


def _set(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in the place of a parameter or buffer."""
    there = getattr(module, name)
    if isinstance(there, nn.Parameter):
        tensor = nn.Parameter(tensor, requires_grad=there.requires_grad)
    setattr(module, name, tensor)


def _cut_off(state: State, network: TaskNetwork) -> None:
    """Put zeros where channels that tasks own would read those that came after."""
    tensors = ownership.tensors(network)
    for name, of in ownership.ends(network, state.groups, state.owners).items():
        for task in range(len(state.heads)):
            tensors[name].data.masked_fill_(ownership.cut_off(of, task), 0)


def _check(state: State) -> None:
    """Refuse growth after which some task says something else."""
    for task, record in enumerate(state.tasks):
        network = whole(state, task)
        running = _watched(network)
        try:
            with surgery.zeroed(network, state.groups, ownership.active(state.owners, task)):
                logits = network(record.inputs)
        except Exception as error:
            layer = f"layer {running[-1]!r} fails" if running else "it fails"
            raise NetworkError(f"{_NO_GROWTH} {layer} with more channels ({first_line(error)}). {_REMEDY}") from error
        if not torch.allclose(logits, record.logits, rtol=1e-3, atol=1e-4):
            raise NetworkError(f"{_NO_GROWTH} with more channels it gives other answers. {_REMEDY}")


_NO_GROWTH = "no channel is left, and the backbone cannot grow:"
_REMEDY = "Take exhausted reuse, a smaller keep, or a backbone that is written for any number of channels"


def _watched(network: TaskNetwork) -> list[str]:
    """The names of the backbone's modules that are running, outermost first, as its passes go on."""
    running: list[str] = []
    for name, module in network.backbone.named_modules():
        if name:
            module.register_forward_pre_hook(lambda *_, name=name: running.append(name))
            module.register_forward_hook(lambda *_: running.pop() and None)
    return running
