"""What a stream has come to: one backbone, the owners of its channels, and what each task has for itself.

A state is never changed: learning a task makes another one, so that a task which fails half-way leaves no trace.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds, surgery
from structured_ensembles.continual.learner import ownership
from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.learner.memory import Served, owner_bits, packed
from structured_ensembles.continual.learner.ownership import Owners
from structured_ensembles.continual.learner.units import BACKBONE
from structured_ensembles.errors import NetworkError
from structured_ensembles.networks import modules
from structured_ensembles.options.choices import CrossBlock
from structured_ensembles.types import Group


@dataclass(frozen=True, eq=False)
class Profile:
    """What the examples of a task look like to its own network, so that inputs without a task id can be told its own.

    Attributes:
        temperature: That calibrates its head on held-out examples.
        means: (K, d), mean features of the classes that had examples.
        precision: (d, d), inverse of the covariance that the classes share.
        usual: (4, 2), mean and standard deviation of every `Score` on held-out examples.
    """

    temperature: float
    means: Tensor
    precision: Tensor
    usual: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that answers without a task id need beside those of `Memory`."""
        return 8 + self.means.nbytes + self.precision.nbytes + self.usual.nbytes


@dataclass(frozen=True, eq=False)
class TaskRecord:
    """What is remembered of a task.

    Attributes:
        name: As messages call it.
        classes: The K names.
        fingerprint: Tells its training examples from those of others.
        held_out_accuracy: Of the epoch that was kept; None after a training loop of the user's own.
        inputs: (n, ...), a few of its inputs.
        logits: (n, K), what the network said to them when the task was learned.
        digests: SHA-256 of everything that its answers depend on, by name, when the task was learned.
        profile: What its examples look like to it, to tell it from other tasks.
    """

    name: str
    classes: tuple[str, ...]
    fingerprint: str
    held_out_accuracy: float | None
    inputs: Tensor
    logits: Tensor
    digests: Mapping[str, str]
    profile: Profile | None = None


@dataclass(frozen=True, eq=False)
class State:
    """What a stream of T tasks has come to.

    Attributes:
        backbone: On the CPU. Its free channels are as they were drawn.
        groups: Of its channels, with names as in a `TaskNetwork`; empty before the first task.
        owners: By group, who owns each channel.
        heads: T of them.
        norms: For each task the normalisation tensors of its own, if tasks have that; else an empty mapping.
        tasks: T records.
        widths: For each task, how many channels every group had when it was learned, if the backbone has grown since
            the first one; else empty.
    """

    backbone: nn.Module
    groups: tuple[Group, ...] = ()
    owners: Owners = field(default_factory=dict)
    heads: tuple[nn.Module, ...] = ()
    norms: tuple[Mapping[str, Tensor], ...] = ()
    tasks: tuple[TaskRecord, ...] = ()
    widths: tuple[Mapping[str, int], ...] = ()


def whole(state: State, task: int) -> TaskNetwork:
    """The network of a task, all of its channels on, in evaluation mode; its tensors are the state's, only to be read.

    Its modules are its own: it may be given hooks while another one answers.
    """
    network = TaskNetwork(state.backbone, state.heads[task])
    shared: dict[int, Tensor] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    tensors = ownership.tensors(network)
    for name, values in state.norms[task].items():
        there = tensors[name]
        shared[id(there)] = nn.Parameter(values, there.requires_grad) if isinstance(there, nn.Parameter) else values
    return cast("TaskNetwork", modules.copied(network, shared)).eval()


class AsLearned(NamedTuple):
    """The network of a task as wide as it was when the task was learned.

    Attributes:
        network: All of its channels on, in evaluation mode; its tensors are only to be read.
        groups: Of its channels.
        owners: By group.
    """

    network: TaskNetwork
    groups: tuple[Group, ...]
    owners: Owners


def as_learned(state: State, task: int) -> AsLearned:
    """The network of a task, without the channels that the backbone has got since then.

    Those are zeros to the task, but a wider layer may add its numbers up in another order.
    """
    network, present = whole(state, task), widths_of(state.groups)
    widths = state.widths[task] if state.widths else present
    if widths == present:
        return AsLearned(network, state.groups, state.owners)
    first = {name: torch.arange(width) for name, width in widths.items()}
    narrow = cast("TaskNetwork", surgery.cut(network, state.groups, first))
    owners = {name: owner[: widths[name]] for name, owner in state.owners.items()}
    return AsLearned(narrow, surgery.narrowed(network, state.groups, first), owners)


def widths_of(groups: Sequence[Group]) -> dict[str, int]:
    """By group, how many channels it has."""
    return {group.name: group.channels for group in groups}


def gated(state: State, task: int) -> TaskNetwork:
    """A copy of the network of a task that uses the channels of the tasks 0 to ``task``, with tensors of its own."""
    network, groups, owners = as_learned(state, task)
    with surgery.zeroed(network, groups, ownership.active(owners, task)):
        return copy.deepcopy(network)  # the copy keeps the hooks


@torch.no_grad()
def answers(state: State, task: int, inputs: Tensor, batch_size: int = 256) -> Tensor:
    """(B, K): the logits of a task's network."""
    network, groups, owners = as_learned(state, task)
    with surgery.zeroed(network, groups, ownership.active(owners, task)):
        return torch.cat([network(part) for part in torch.split(inputs, batch_size)])


def digests(state: State, task: int) -> dict[str, str]:
    """SHA-256 of everything that a task's answers depend on, by name of the tensor."""
    network, groups, owners = as_learned(state, task)
    ends = ownership.ends(network, groups, owners)
    parts = {f"head.{name}": tensor for name, tensor in network.head.state_dict().items()}
    for name, tensor in ownership.tensors(network).items():
        parts[name] = tensor if name not in ends else _chosen(tensor, ownership.used(ends[name], task))
    for name, owner in owners.items():
        parts[f"owners of {name}"] = owner.where(owner <= task, ownership.NOBODY)
    return {name: _digest(tensor) for name, tensor in parts.items()}


def changed(state: State) -> Iterator[str]:
    """What the answers of a task depend on and is not, to the bit, as it was when the task was learned."""
    for task, record in enumerate(state.tasks):
        now = digests(state, task)
        for name, digest in record.digests.items():
            if now.get(name) != digest:
                yield f"{name} of task {task} ({record.name}) has changed"


def drifted(state: State) -> Iterator[str]:
    """The answers that are not, to the bit, what they were when their task was learned, one sentence a task."""
    for task, record in enumerate(state.tasks):
        difference = (answers(state, task, record.inputs) - record.logits).abs().max()
        if difference != 0:  # NaN is a change, too
            yield f"logits of task {task} ({record.name}) differ by up to {float(difference):.2g}"


def check(state: State) -> None:
    """Refuse a state in which some task is not, to the bit, what it was when it was learned.

    Raises:
        NetworkError: Naming what has changed.
    """
    if changes := [*changed(state)]:
        raise NetworkError(
            f"tasks have been forgotten: {_listed([*changes, *drifted(state)])}. Something has written into the "
            "learner's state: load it from where it was saved"
        )
    if changes := [*drifted(state)]:
        raise NetworkError(
            f"{_listed(changes)}, though all weights, statistics and owners are the same to the bit. The likely cause "
            "is rounding, which differs between machines, numbers of threads and versions of PyTorch: check where the "
            "tasks were learned"
        )


def _listed(changes: Sequence[str]) -> str:
    return "; ".join(changes[:_MOST_LISTED]) + ("; ..." if len(changes) > _MOST_LISTED else "")


_MOST_LISTED = 5


def _chosen(tensor: Tensor, mask: Tensor) -> Tensor:
    """The entries for which a mask, broadcast to the tensor, is true: (n,)."""
    return tensor.detach()[mask.expand_as(tensor)]


def _digest(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous().flatten()
    return hashlib.sha256(values.view(torch.uint8).numpy().tobytes()).hexdigest()


def served(state: State, rule: CrossBlock) -> Served:
    """What must be stored to answer for all tasks; entries of free channels, and zeros, are not.

    Args:
        state: Of the stream.
        rule: Whether weights from newer to older channels are zeros.
    """
    parts: dict[str, dict[str, Tensor]] = {"shared": {}, "normalisation": {}, "masks": {}, "heads": {}}
    if not state.tasks:
        return parts
    network = whole(state, 0)
    ends = ownership.ends(network, state.groups, state.owners)
    norms = ownership.norm_tensors(network)
    for name, tensor in ownership.tensors(network).items():
        if name in ends and not (name in norms and state.norms[0]):
            part = "normalisation" if name in norms else "shared"
            parts[part][name] = _chosen(tensor, ownership.stored(ends[name], rule))
    fixed = {BACKBONE + name: tensor for name, tensor in network.backbone.state_dict().items()}
    parts["shared"] |= {name: fixed[name] for name in fixed if name not in ends and not name.endswith(kinds.COUNTER)}
    for task, own in enumerate(state.norms):
        for name, tensor in own.items():
            parts["normalisation"][f"{task}.{name}"] = _chosen(tensor, ownership.used(ends[name], task))
        parts["heads"] |= {f"{task}.{name}": tensor for name, tensor in _head(state, network, task).items()}
    owners = torch.cat(list(state.owners.values()))
    parts["masks"]["owners"] = packed(owners - ownership.NOBODY, owner_bits(len(state.tasks)))
    return parts


def _head(state: State, network: nn.Module, task: int) -> dict[str, Tensor]:
    """The tensors of a head, without the weights that read channels which its task does not use."""
    tensors = {name: tensor.detach() for name, tensor in state.heads[task].state_dict().items()}
    active = ownership.active(state.owners, task)
    for module, mask in ownership.read_by_head(network, state.groups, active).items():
        name = f"{module.removeprefix('head.')}.weight"
        tensors[name] = tensors[name][:, mask]
    return tensors
