"""One attempt to learn a task: the network to train, what of it may change, and what becomes of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from structured_ensembles.channels import surgery
from structured_ensembles.continual.learner import guard, ownership
from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.learner.lesson import Lesson
from structured_ensembles.continual.learner.ownership import Owners
from structured_ensembles.continual.learner.state import State, TaskRecord, answers, digests, widths_of
from structured_ensembles.errors import SettingsError
from structured_ensembles.files.marks import claim as claim_folder
from structured_ensembles.networks.modules import of_weights
from structured_ensembles.options.choices import CrossBlock, Norms
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.types import Channels

_MARK = "channels.sha256"


@dataclass(frozen=True, eq=False)
class Attempt:
    """A task that is about to be trained.

    Attributes:
        state: Of the stream before it.
        network: Where training starts from: a copy of the backbone, and the task's head.
        owners: Of the channels, the task's own included.
        masks: By name of a tensor of the backbone, the entries that may change.
        norms: Whose the normalisation layers are.
    """

    state: State
    network: TaskNetwork
    owners: Owners
    masks: Mapping[str, Tensor]
    norms: Norms

    @property
    def task(self) -> int:
        """Its number."""
        return len(self.state.tasks)


def begin(state: State, head: nn.Module, taken: Channels, settings: ContinualSettings) -> Attempt:
    """The attempt of the next task with these channels; nothing of the state is changed."""
    task = len(state.tasks)
    owners = ownership.claimed(state.owners, taken, task)
    network = TaskNetwork(copy.deepcopy(state.backbone), copy.deepcopy(head))
    ends = ownership.ends(network, state.groups, owners)
    if settings.cross_block is CrossBlock.ZERO:
        tensors = ownership.tensors(network)
        for name, of in ends.items():
            tensors[name].data.masked_fill_(ownership.cut_off(of, task), 0)
    masks = ownership.trainable(network, ends, task, settings.cross_block, settings.norms)
    return Attempt(state, network, owners, masks, settings.norms)


def claim(folder: Path | None, attempt: Attempt) -> None:
    """Refuse a folder that holds a training of other channels or under another rule, or make it this attempt's.

    Raises:
        SettingsError: It does.
    """
    found = f"{of_weights(attempt.masks)} {attempt.norms}"
    refusal = f"{folder} holds a training of other channels: take the same settings, or delete it to train anew"
    claim_folder(folder, found, refusal, _MARK)


@contextmanager
def held(attempt: Attempt, network: TaskNetwork) -> Iterator[None]:
    """Within the block, a network and its copies run as the task's own: gated, guarded, normalised by owner.

    Args:
        attempt: Of the task.
        network: Its network, or another one that holds the same.
    """
    active = ownership.active(attempt.owners, attempt.task)
    with ExitStack() as stack:
        stack.enter_context(guard.guarded(network, attempt.masks))
        if attempt.norms is Norms.OWNER:
            stack.enter_context(guard.normalised_as_stored(network, attempt.masks))
        stack.enter_context(surgery.zeroed(network, attempt.state.groups, active))
        yield


def fits(bench: nn.Module, attempt: Attempt) -> bool:
    """Whether a backbone has the shapes of an attempt's: not if channels were added since it was made."""
    values = ownership.tensors(attempt.network)
    return all(tensor.shape == values[name].shape for name, tensor in ownership.of_backbone(bench).items())


def fill(bench: nn.Module, attempt: Attempt) -> None:
    """Give a backbone what an attempt starts from: the values, on the CPU, of the type that is stored, and what trains.

    Args:
        bench: Of the same shapes; it is changed in place, and gradients that it has are dropped.
        attempt: Of the next task.
    """
    bench.zero_grad()
    values = ownership.tensors(attempt.network)
    for name, tensor in ownership.of_backbone(bench).items():
        tensor.data = values[name].detach().clone()
        tensor.requires_grad_(values[name].requires_grad)


@torch.no_grad()
def commit(attempt: Attempt, trained: TaskNetwork, lesson: Lesson, accuracy: float | None) -> State:
    """The state after the task: of the trained network, only what may change is taken over.

    Args:
        attempt: Of the task.
        trained: The trained network, on any device and of any floating type; it may hold anything where it was not to
            change.
        lesson: What was learned.
        accuracy: On the held-out examples, if that is known.

    Raises:
        SettingsError: A weight is infinite or NaN.
    """
    network, before = copy.deepcopy(attempt.network), attempt.state
    guard.merged(network, trained, attempt.masks)
    # Values only: the trained copy has the hooks of its training.
    network.head.load_state_dict(trained.head.state_dict())
    head = network.head.eval()
    _check_finite(network, head, lesson.name)
    own: dict[str, Tensor] = {}
    if attempt.norms is Norms.TASK:
        own = {name: tensor.clone() for name, tensor in ownership.norm_tensors(network).items()}
        fresh = ownership.norm_tensors(TaskNetwork(before.backbone, head))
        for name, tensor in ownership.norm_tensors(network).items():
            tensor.copy_(fresh[name])
    state = replace(
        before,
        backbone=network.backbone,
        owners=attempt.owners,
        heads=(*before.heads, head),
        norms=(*before.norms, own),
        widths=(*before.widths, widths_of(before.groups)) if before.widths else (),
    )
    return replace(state, tasks=(*before.tasks, _record(state, attempt.task, lesson, accuracy)))


def _record(state: State, task: int, lesson: Lesson, accuracy: float | None) -> TaskRecord:
    return TaskRecord(
        name=lesson.name,
        classes=lesson.examples.classes,
        fingerprint=lesson.examples.fingerprint,
        held_out_accuracy=accuracy,
        inputs=lesson.inputs,
        logits=answers(state, task, lesson.inputs),
        digests=digests(state, task),
    )


def _check_finite(network: nn.Module, head: nn.Module, name: str) -> None:
    tensors = {**ownership.tensors(network), **head.state_dict()}
    if wrong := [key for key, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise SettingsError(
            f"after training {name!r}, {wrong[0]} holds infinite or NaN values: nothing of it is kept. Use a smaller "
            "learning rate"
        )
