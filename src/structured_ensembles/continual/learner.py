"""ContinualLearner: one network that learns one task after the other and forgets none of them.

Each task takes some of the channels that nobody owns, trains them, and reads those of the tasks before. What belongs
to an earlier task never changes, to the bit.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor, nn

from structured_ensembles.batches import loader
from structured_ensembles.continual import attempt as attempts
from structured_ensembles.continual import capacity, lesson, ownership, state, units
from structured_ensembles.continual.backbones import backbone as named_backbone
from structured_ensembles.continual.backbones import features_of
from structured_ensembles.continual.heads import TaskNetwork, make_head
from structured_ensembles.continual.memory import Memory, measured
from structured_ensembles.continual.settings import Capacity
from structured_ensembles.continual.settings import settings as preset
from structured_ensembles.errors import DataError, NetworkError, SettingsError
from structured_ensembles.extraction import draw, extract
from structured_ensembles.fitting import device
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.ranking import rank
from structured_ensembles.search import search
from structured_ensembles.seeding import derived_seed
from structured_ensembles.training import train as train_network
from structured_ensembles.types import Topology
from structured_ensembles.uncertainty import predict_from_logits

if TYPE_CHECKING:
    from structured_ensembles.batches import Source
    from structured_ensembles.continual.attempt import Attempt
    from structured_ensembles.continual.lesson import Classes, Lesson
    from structured_ensembles.continual.memory import Served
    from structured_ensembles.continual.settings import ContinualSettings
    from structured_ensembles.continual.state import State, TaskRecord
    from structured_ensembles.types import Channels, Importance, Prediction

Backbone: TypeAlias = "NetworkSpec | Callable[[], nn.Module] | nn.Module"
"""What makes the backbone: a name and its arguments, a factory (a class will do), or one network."""

_BACKBONE, _HEAD, _TRAIN, _SPLIT, _SEARCH, _RANK = range(6)
"""The parts of a stream that have seeds of their own."""


class ContinualLearner:
    """One network for a stream of tasks.

    Args:
        backbone: A spec, whose output layer is left out; or what makes a network that gives features (B, d) or maps
            (B, C, H, W).
        settings: How tasks are learned; None takes the default.
        seed: Of everything random, at least 0.

    Attributes:
        state: What the stream has come to; never changed in place, replaced when a task has been learned.
        notices: What a user should know of the tasks learned so far, one sentence each.

    Example:
        >>> learner = ContinualLearner(NetworkSpec("small_cnn", (1, 28, 28), 2))  # doctest: +SKIP
        >>> for loader in tasks:  # doctest: +SKIP
        ...     learner.learn(loader)
        >>> learner.predict(images, task=0).classes  # doctest: +SKIP
    """

    def __init__(self, backbone: Backbone, *, settings: ContinualSettings | None = None, seed: int = 0) -> None:
        self.settings = settings or preset()
        self.seed = operator.index(seed)
        network = draw(_factory(backbone), derived_seed(self.seed, _BACKBONE, 0))
        if not isinstance(network, nn.Module):
            raise NetworkError(f"the backbone is a {type(network).__name__}: it must be an nn.Module")
        self.state: State = state.State(network.cpu())
        self.notices: tuple[str, ...] = ()
        self._bench: nn.Module | None = None

    @property
    def tasks(self) -> tuple[TaskRecord, ...]:
        """What is remembered of the tasks that have been learned, in their order."""
        return self.state.tasks

    def learn(
        self,
        train: Source,
        held_out: Source | None = None,
        *,
        name: str | None = None,
        classes: Classes = None,
        directory: str | Path | None = None,
    ) -> None:
        """Learn one more task: all of it, or, after an error or an interruption, nothing.

        Args:
            train: A DataLoader, a dataset of (x, y), or batches; y is a class of this task, from 0 on.
            held_out: What chooses the best epoch; None holds out a stratified share of ``train``.
            name: What to call the task; None numbers it.
            classes: Names of its classes, or how many there are; None counts the labels.
            directory: Where the training is kept, so that it goes on there when it was stopped.

        Raises:
            DataError: The data cannot be learned from, or have been learned already.
            NetworkError: The backbone cannot be used; the message names the layer.
            SettingsError: No channel is left, a loss is not finite, or the directory holds another training.
        """
        taught = lesson.read(train, name, classes, self.tasks)
        share, seed = self.settings.held_out, derived_seed(self.seed, _SPLIT, len(self.tasks))
        parts = lesson.divided(taught, train, held_out, share, seed)
        taught = replace(taught, train=parts[0])
        before, head = self._prepared(taught)
        importance = self._importance(before, head, taught)
        folder = None if directory is None else Path(directory)

        def learned(keep: float, folder: Path | None) -> State:
            begun = attempts.begin(before, head, self._taken(before, importance, keep), self.settings)
            return self._trained(begun, taught, parts[1], folder)

        if self.settings.capacity is Capacity.AUTO:
            self._replace(before, _by_trial(learned, self.settings.delta, folder))
        else:
            self._replace(before, learned(capacity.share(self.settings, len(self.tasks)), folder))

    @contextmanager
    def task(self, train: Source, *, name: str | None = None, classes: Classes = None) -> Iterator[TaskNetwork]:
        """Learn one more task with a training loop of your own.

        The block gets the network to train, in training mode. Whatever the optimiser does to it, only the task's own
        entries are taken over when the block ends; after an exception nothing is. The backbone in it is the same module
        for every task, so that one optimiser may serve them all; the head is new.

        Args:
            train: What channels are chosen by: the examples that the loop will learn from.
            name: What to call the task; None numbers it.
            classes: Names of its classes, or how many there are; None counts the labels.

        Raises:
            DataError: As `learn`.
            NetworkError: As `learn`.
            SettingsError: As `learn`, or capacity auto, which must train by itself.

        Example:
            >>> with learner.task(loader) as network:  # doctest: +SKIP
            ...     optimiser = torch.optim.Adam(network.parameters())
            ...     for x, y in loader:
            ...         optimiser.zero_grad()
            ...         cross_entropy(network(x), y).backward()
            ...         optimiser.step()
        """
        if self.settings.capacity is Capacity.AUTO:
            raise SettingsError("capacity auto finds a task's share by training: use learn(), or another capacity")
        taught = lesson.read(train, name, classes, self.tasks)
        before, head = self._prepared(taught)
        taken = self._taken(before, self._importance(before, head, taught), capacity.share(self.settings, self._next))
        begun = attempts.begin(before, head, taken, self.settings)
        network = TaskNetwork(self._workbench(begun), begun.network.head).train()
        with attempts.held(begun, network):
            yield network
        self._replace(before, attempts.commit(begun, network, taught, None))

    def predict(self, inputs: Tensor, *, task: int, batch_size: int = 256) -> Prediction:
        """What the network of a task says, and how sure it is.

        Args:
            inputs: (B, ...), of the shape of the tasks' examples.
            task: From 0 on, in the order of learning.
            batch_size: So many inputs are run at a time.

        Raises:
            SettingsError: No such task has been learned.
            DataError: There are no inputs, or they have another shape.
        """
        self._check_task(task)
        shape = tuple(self.tasks[task].inputs.shape[1:])
        if len(inputs) == 0 or tuple(inputs.shape[1:]) != shape:
            raise DataError(f"inputs of shape {tuple(inputs.shape)}: pass at least one of shape {shape}")
        logits = state.answers(self.state, task, inputs.cpu(), batch_size)
        return predict_from_logits(logits.unsqueeze(0))

    def network(self, task: int) -> TaskNetwork:
        """A network of its own that answers for one task, in evaluation mode: (B, ...) to logits (B, K).

        It has the whole backbone, with the channels that the task does not use at zero.

        Raises:
            SettingsError: No such task has been learned.
        """
        self._check_task(task)
        return state.gated(self.state, task)

    def export_task(self, task: int) -> nn.Module:
        """The compact, dense network of one task, in evaluation mode: it computes what `network` does.

        Raises:
            SettingsError: No such task has been learned.
        """
        self._check_task(task)
        active = ownership.active(self.state.owners, task)
        return extract(state.whole(self.state, task), self.state.groups, active)

    def forgotten(self) -> tuple[str, ...]:
        """What is not, to the bit, as it was when its task was learned, one sentence each; empty if all is well."""
        changes: list[str] = []
        for task, record in enumerate(self.tasks):
            now = state.digests(self.state, task)
            changed = [name for name, digest in record.digests.items() if now.get(name) != digest]
            changes += [f"{name} of task {task} ({record.name}) has changed" for name in changed]
            difference = (state.answers(self.state, task, record.inputs) - record.logits).abs().max()
            if difference != 0:  # NaN is a change, too
                changes.append(f"logits of task {task} ({record.name}) differ by up to {float(difference):.2g}")
        return tuple(changes)

    def check_forgetting(self) -> None:
        """Check that every task is, to the bit, what it was when it was learned: weights, statistics, owners, logits.

        Raises:
            NetworkError: Naming what has changed.
        """
        if changes := self.forgotten():
            raise NetworkError(
                f"tasks have been forgotten: {'; '.join(changes[:5])}{'; ...' if len(changes) > 5 else ''}. Something "
                "has written into the learner's state: load it from where it was saved"
            )

    def served(self) -> Served:
        """What must be stored to answer for all tasks, by part of `Memory`."""
        return state.served(self.state, self.settings.cross_block)

    def size(self) -> Memory:
        """The bytes of what must be stored to answer for all tasks."""
        return measured(self.served())

    def capacity(self) -> dict[str, float]:
        """By group, the share of channels that no task owns; empty before the first task."""
        return capacity.left(self.state.owners)

    @property
    def _next(self) -> int:
        return len(self.tasks)

    def _check_task(self, task: int) -> None:
        if not 0 <= task < self._next:
            known = f"tasks 0 to {self._next - 1} have been" if self.tasks else "no task has been"
            raise SettingsError(f"task {task} is unknown: {known} learned")

    def _prepared(self, taught: Lesson) -> tuple[State, nn.Module]:
        """The state with its groups known, and a fresh head for the task."""
        before = self.state
        if not before.groups:
            kind, seconds = self.settings.head, self.settings.graph_seconds
            groups = units.find(before.backbone, kind, taught.inputs, seconds)
            before = replace(before, groups=groups, owners=ownership.unowned(groups))
        if capacity.exhausted(before.owners):
            capacity.refuse_exhausted(self.settings, taught.name, self._next)
        features = features_of(before.backbone, taught.inputs)
        seed = derived_seed(self.seed, _HEAD, self._next)
        return before, make_head(self.settings.head, features, len(taught.classes), seed)

    def _importance(self, before: State, head: nn.Module, taught: Lesson) -> Importance:
        """How much the task needs each channel, all of them on; empty if there is nothing to take."""
        if capacity.exhausted(before.owners):
            return {}
        chosen, task = self.settings.search, self._next
        network = TaskNetwork(copy.deepcopy(before.backbone), copy.deepcopy(head)).to(device())
        found = Topology(before.groups, len(taught.classes))
        batches = loader(taught.train, chosen.batch_size, derived_seed(self.seed, _SEARCH, task))
        scores = search(network, found, batches, 1, chosen, derived_seed(self.seed, _SEARCH, task, 1)).scores
        batches = loader(taught.train, chosen.batch_size, derived_seed(self.seed, _RANK, task))
        seed, limit = derived_seed(self.seed, _RANK, task, 1), self.settings.rank_batches
        return rank(network, found, batches, scores, chosen.placement, self.settings.reduce, seed, limit)

    def _taken(self, before: State, importance: Importance, keep: float) -> Channels:
        return capacity.take(importance, before.owners, self.settings, keep)

    def _trained(self, begun: Attempt, taught: Lesson, held_out: object, folder: Path | None) -> State:
        with attempts.held(begun, begun.network):
            trained = train_network(
                begun.network,
                taught.train,
                held_out,  # type: ignore[arg-type]  # a dataset, as `lesson.divided` gives it
                self.settings.training,
                seed=derived_seed(self.seed, _TRAIN, begun.task),
                label=f"structured, {taught.name}",
                directory=folder,
            )
        network = trained.network
        if not isinstance(network, TaskNetwork):
            raise TypeError(type(network).__name__)
        return attempts.commit(begun, network, taught, trained.held_out_accuracy)

    def _workbench(self, begun: Attempt) -> nn.Module:
        """The backbone that training loops of users get: one module for all tasks, with the values of an attempt."""
        if self._bench is None:
            self._bench = copy.deepcopy(begun.network.backbone)
        values = ownership.tensors(begun.network)
        for name, tensor in ownership.tensors(TaskNetwork(self._bench, begun.network.head)).items():
            tensor.data.copy_(values[name])
        self._bench.zero_grad()
        return self._bench

    def _replace(self, before: State, after: State) -> None:
        """Take over a new state: one assignment, so that an interruption finds the old one or the new one."""
        task = after.tasks[-1]
        if len(before.tasks) != self._next:
            raise SettingsError(f"another task was learned while {task.name!r} was: nothing of it is kept")
        number = len(before.tasks)
        taken = {name: (owner == number).nonzero().flatten() for name, owner in after.owners.items()}
        notice = capacity.notice(taken, before.owners, task.name)
        if notice is not None:
            self.notices = (*self.notices, notice)
        self.state = after


def _factory(backbone: Backbone) -> Callable[[], nn.Module]:
    if isinstance(backbone, NetworkSpec):
        return partial(named_backbone, backbone)
    if isinstance(backbone, nn.Module):
        return partial(copy.deepcopy, backbone)
    return backbone


def _by_trial(learned: Callable[[float, Path | None], State], delta: float, folder: Path | None) -> State:
    """The smallest share whose held-out accuracy is at most ``delta`` below that of everything that is free."""

    def tried(keep: float) -> State:
        return learned(keep, None if folder is None else folder / f"share-{keep:g}")

    most = tried(1.0)
    for keep in capacity.TRIALS:
        after = tried(keep)
        if _accuracy(after) >= _accuracy(most) - delta:
            return after
    return most


def _accuracy(after: State) -> float:
    return after.tasks[-1].held_out_accuracy or 0.0
