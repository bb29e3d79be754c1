"""Which channels of a backbone tasks can own, and which backbones cannot be learned without forgetting.

Forgetting is excluded by owners: every parameter and statistic belongs to a channel, and every channel to one task.
Other buffers are constants.
What belongs to no channel, or to all of them, is refused here by name, before any work.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds, surgery, topology
from structured_ensembles.continual.learner.backbones import features_of
from structured_ensembles.continual.learner.heads import TaskNetwork, probe_head
from structured_ensembles.errors import NetworkError
from structured_ensembles.options.choices import HeadKind
from structured_ensembles.seeding import seeded
from structured_ensembles.types import Group, Side

BACKBONE = "backbone."
"""How the names of a backbone's parts begin in a `TaskNetwork`."""

_MOST_NAMED = 3


def find(backbone: nn.Module, kind: HeadKind, example: Tensor, seconds: float = 60.0) -> tuple[Group, ...]:
    """The groups of channels that tasks can own, with names as in a `TaskNetwork`.

    Channels that an addition, a concatenation or a depthwise convolution ties together are one group, so that they
    always have one owner.

    Args:
        backbone: It is left as it is.
        kind: Of the heads that will read its features.
        example: (B, ...), inputs that it takes.
        seconds: How long the dependency graph may take.

    Raises:
        NetworkError: The backbone is a single layer, or some part of it belongs to no channel or could not be kept for
            the task that owns it.
    """
    features = features_of(backbone, example)
    if kinds.is_layer(backbone):
        raise NetworkError(
            f"the backbone is one {type(backbone).__name__} layer by itself: put it into an nn.Sequential"
        )
    network = TaskNetwork(backbone, probe_head(kind, features))
    refuse([problem for name, module in backbone.named_modules() if (problem := _unsound(name, module))])
    found = topology.find(network, example, seconds=seconds)
    groups = tuple(group for group in found.groups if group.name.startswith(BACKBONE))
    refuse([*_uncovered(network, groups), *_moving(backbone, example)], found.notices)
    return groups


def refuse(problems: Sequence[str], reasons: Sequence[str] = ()) -> None:
    """Raise the error that names the first few problems, if there are any."""
    if not problems:
        return
    more = f" (and {len(problems) - _MOST_NAMED} more)" if len(problems) > _MOST_NAMED else ""
    told = (
        f"this backbone cannot learn tasks without forgetting: {'; '.join(problems[:_MOST_NAMED])}{more}.",
        "Every parameter must belong to channels of convolutions, linear, batch normalisation or PReLU layers.",
        *reasons[:_MOST_NAMED],
    )
    raise NetworkError(" ".join(told))


def _unsound(name: str, module: nn.Module) -> str | None:
    """Why a normalisation layer cannot be kept for the tasks that own its channels."""
    if isinstance(module, nn.SyncBatchNorm):
        return f"layer {name!r} (SyncBatchNorm) normalises over processes: use BatchNorm"
    if not isinstance(module, kinds.BatchNorm):
        return None
    if module.running_mean is None:
        return f"layer {name!r} keeps no running statistics, so that an answer depends on its batch: keep them"
    if module.momentum is None:
        return f"layer {name!r} averages statistics over all batches of all tasks: give it a momentum, 0.1 for example"
    return None


def _uncovered(network: TaskNetwork, groups: Sequence[Group]) -> Iterator[str]:
    """The parts of the backbone that hold something which belongs to no channel."""
    own = {group.name: torch.ones(group.channels, dtype=torch.bool) for group in groups}
    covered = surgery.laid_out(network, groups, own, False)
    for name, module in network.backbone.named_modules():
        tensors = dict(module.named_parameters(recurse=False))
        if kinds.is_norm(module):
            tensors |= {key: value for key, value in module.named_buffers(recurse=False) if value.dim()}
        whole = bool(covered.get((BACKBONE + name, Side.OUT), torch.zeros(1)).all())
        for key in tensors:
            if not whole or key not in kinds.tensors(module, Side.OUT):
                place = f"{name!r} ({type(module).__name__})" if name else f"the backbone itself ({key})"
                yield f"{key} of {place} is no task's own"
                break


def _moving(backbone: nn.Module, example: Tensor) -> Iterator[str]:
    """Statistics outside normalisation layers that a pass in training changes: no task could keep them."""
    moved = copy.deepcopy(backbone).train()
    before = {name: buffer.clone() for name, buffer in moved.named_buffers()}
    try:
        with torch.no_grad(), seeded(0):
            moved(example)
    except Exception:  # noqa: BLE001 (a batch that is too small, for one: training will say so)
        return
    for name, buffer in moved.named_buffers():
        place, _, key = name.rpartition(".")
        module = moved.get_submodule(place)
        if not kinds.is_norm(module) and not torch.equal(buffer, before[name]):
            yield f"{key} of {place!r} ({type(module).__name__}) changes in training and is no task's own"
