"""ContinualLearner: one network that learns one task after the other and forgets none of them.

Each task takes some of the channels that nobody owns, trains them, and reads those of the tasks before. What belongs
to an earlier task never changes, to the bit.
"""

from __future__ import annotations

import copy
import operator
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import overload

from torch import Tensor, nn

from structured_ensembles.channels.extraction import extract
from structured_ensembles.continual.learner import attempt as attempts
from structured_ensembles.continual.learner import capacity, expand, inference, lesson, ownership, state, store, units
from structured_ensembles.continual.learner.attempt import Attempt
from structured_ensembles.continual.learner.backbones import backbone as without_output
from structured_ensembles.continual.learner.backbones import features_of
from structured_ensembles.continual.learner.heads import TaskNetwork, make_head
from structured_ensembles.continual.learner.inference import Inferred
from structured_ensembles.continual.learner.lesson import Classes, Lesson
from structured_ensembles.continual.learner.memory import Memory, Served, measured
from structured_ensembles.continual.learner.state import State, TaskRecord
from structured_ensembles.continual.learner.tasks import Stage, check_number
from structured_ensembles.data.batches import Source, refuse_repeats
from structured_ensembles.data.examples import Examples
from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.files.marks import mark
from structured_ensembles.networks import Given, NetworkSpec
from structured_ensembles.networks.given import architecture
from structured_ensembles.networks.modules import draw
from structured_ensembles.networks.stored import check_initialised, check_stored
from structured_ensembles.options.choices import Capacity, Exhausted, Per, Score
from structured_ensembles.options.streams import ContinualSettings, lasting
from structured_ensembles.options.streams import settings as preset
from structured_ensembles.prediction.uncertainty import predict_from_logits
from structured_ensembles.seeding import derived_seed
from structured_ensembles.training.loop import train as train_network
from structured_ensembles.types import Prediction


class ContinualLearner:
    """One network for a stream of tasks.

    Args:
        backbone: A spec, whose output layer is left out; or what makes a network that gives features (B, d) or maps
            (B, C, H, W).
        settings: How tasks are learned; None takes the default.
        seed: Of everything random, at least 0.
        directory: Where the stream is kept: every task that has been learned, and what `learn` is training.
            A stream that is there already goes on: give it the tasks from number ``len(learner.tasks)`` on.

    Raises:
        NetworkError: The backbone is no network.
        SettingsError: The directory holds a stream of other settings or another seed.
        ArtefactError: The stream there is damaged, newer than this library, or of another backbone.

    Attributes:
        state: What the stream has come to; never changed in place, replaced when a task has been learned.
        notices: What a user should know of the tasks learned so far, one sentence each.

    Example:
        >>> learner = ContinualLearner(NetworkSpec("small_cnn", (1, 28, 28), 2))  # doctest: +SKIP
        >>> for loader in tasks:  # doctest: +SKIP
        ...     learner.learn(loader)
        >>> learner.predict(images, task=0).classes  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: Given,
        *,
        settings: ContinualSettings | None = None,
        seed: int = 0,
        directory: str | Path | None = None,
    ) -> None:
        self._settings = settings or preset()
        self.seed = operator.index(seed)
        self._make = architecture(backbone, without_output)
        network = draw(self._make, derived_seed(self.seed, Stage.BACKBONE, 0))
        if not isinstance(network, nn.Module):
            raise NetworkError(f"the backbone is a {type(network).__name__}: it must be an nn.Module")
        self.state: State = state.State(network.cpu())
        self.notices: tuple[str, ...] = ()
        self._bench: nn.Module | None = None
        self._spec = backbone if isinstance(backbone, NetworkSpec) else None
        self._directory = None if directory is None else Path(directory)
        self._stream = None if self._directory is None else self._directory / store.STREAM
        if self._stream is not None and self._stream.exists():
            self._go_on(store.read(self._stream))

    @property
    def settings(self) -> ContinualSettings:
        """How tasks are learned. What learned tasks depend on stays (`streams.LASTING`); the rest may be set anew."""
        return self._settings

    @settings.setter
    def settings(self, new: ContinualSettings) -> None:
        if self.tasks and lasting(new) != lasting(self._settings):
            raise SettingsError(f"the tasks learned so far depend on {lasting(self._settings)}: begin another stream")
        self._settings = new

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
            directory: Where the training is kept, so that it goes on there when it was stopped; None takes a folder in
                the stream's directory, if there is one.

        Raises:
            DataError: The data cannot be learned from, or have been learned already.
            NetworkError: The backbone cannot be used; the message names the layer.
            SettingsError: No channel is left, a loss is not finite, or the directory holds another training.
        """
        store.check_unchanged(self._stream, self.tasks)
        taught = lesson.read(train, name, classes, self.tasks)
        own = None if held_out is None else lesson.held_out_of(taught, held_out)
        parts = self._split(train, taught) if own is None else (taught.examples, own)
        before, head = self._prepared(taught)
        folder = self._folder() if directory is None else Path(directory)
        claimed = lesson.claimed(folder, taught, own)
        importance = capacity.needed(before, head, parts[0], self.settings, self.seed)

        def learned(keep: float, kept: Path | None) -> State:
            mark(folder, claimed)
            taken = capacity.take(importance, before.owners, self.settings, keep)
            begun = attempts.begin(before, head, taken, self.settings)
            return inference.profiled(self._trained(begun, taught, parts, kept), *parts)

        if self.settings.capacity is Capacity.AUTO:
            self._replace(before, capacity.by_trial(learned, self.settings.delta, folder))
        else:
            self._replace(before, learned(capacity.share(self.settings, len(self.tasks)), folder))
        if folder is not None and directory is None:
            shutil.rmtree(folder, ignore_errors=True)  # the stream is saved, and nothing goes on from there

    @contextmanager
    def task(
        self, train: Source, held_out: Source | None = None, *, name: str | None = None, classes: Classes = None
    ) -> Iterator[TaskNetwork]:
        """Learn one more task with a training loop of your own.

        The block gets the network to train, in training mode. Whatever the optimiser does to it, only the task's own
        entries are taken over when the block ends; after an exception nothing is. The backbone in it is the same module
        for every task, so that one optimiser may serve them all, until the network grows; the head is new. It begins
        on the CPU, and may be moved to another device or floating type: what is taken over is moved back.

        Args:
            train: What channels are chosen by: the examples that the loop will learn from.
            held_out: Other examples, from which is learned what is usual for the task, to know it when no task is
                told. None takes ``train``, on which the loop makes everything look more usual than it is.
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
        store.check_unchanged(self._stream, self.tasks)
        taught = lesson.read(train, name, classes, self.tasks)
        usual = taught.examples if held_out is None else lesson.held_out_of(taught, held_out)
        before, head = self._prepared(taught)
        importance = capacity.needed(before, head, taught.examples, self.settings, self.seed)
        share = capacity.share(self.settings, self._next)
        taken = capacity.take(importance, before.owners, self.settings, share)
        begun = attempts.begin(before, head, taken, self.settings)
        network = TaskNetwork(self._workbench(begun), copy.deepcopy(begun.network.head)).train()
        with attempts.held(begun, network):
            yield network
        after = attempts.commit(begun, network, taught, None)
        self._replace(before, inference.profiled(after, taught.examples, usual))

    @overload
    def predict(self, inputs: Tensor, *, task: int, batch_size: int = ...) -> Prediction: ...

    @overload
    def predict(
        self, inputs: Tensor, *, task: None = ..., per: Per = ..., score: Score = ..., batch_size: int = ...
    ) -> Inferred: ...

    def predict(
        self,
        inputs: Tensor,
        *,
        task: int | None = None,
        per: Per = Per.SAMPLE,
        score: Score = Score.DISTANCE,
        batch_size: int = 256,
    ) -> Prediction | Inferred:
        """What the network of a task says, and how sure it is; without a task, also which task that is.

        Args:
            inputs: (B, ...), of the shape of the tasks' examples.
            task: From 0 on, in the order of learning; None infers it.
            per: Without a task, whether each input has its own, or all of them have the same.
            score: Without a task, by what it is told.
            batch_size: So many inputs are run at a time.

        Raises:
            SettingsError: No such task has been learned, or none.
            DataError: There are no inputs, or they have another shape or are no floating numbers.
        """
        number = check_number(0 if task is None else task, self._next)
        inputs = lesson.checked_inputs(inputs, self.tasks[0].inputs)
        if batch_size < 1:
            raise SettingsError(f"batch_size {batch_size} must be at least 1")
        if task is not None:
            return predict_from_logits(state.answers(self.state, number, inputs, batch_size).unsqueeze(0))
        per, score, rule = Per.named(per), Score.named(score), self.settings.cross_block
        return inference.infer(self.state, rule, inputs, per=per, score=score, batch_size=batch_size)

    def network(self, task: int) -> TaskNetwork:
        """A network of its own that answers for one task, in evaluation mode: (B, ...) to logits (B, K).

        It has the whole backbone, with the channels that the task does not use at zero.

        Raises:
            SettingsError: No such task has been learned.
        """
        return state.gated(self.state, check_number(task, self._next))

    def export_task(self, task: int) -> nn.Module:
        """The compact, dense network of one task, in evaluation mode: it computes what `network` does.

        Raises:
            SettingsError: No such task has been learned.
        """
        task = check_number(task, self._next)
        active = ownership.active(self.state.owners, task)
        return extract(state.whole(self.state, task), self.state.groups, active)

    def forgotten(self) -> tuple[str, ...]:
        """What is not, to the bit, as it was when its task was learned, one sentence each; empty if all is well."""
        return (*state.changed(self.state), *state.drifted(self.state))

    def check_forgetting(self) -> None:
        """Check that every task is, to the bit, what it was when it was learned: weights, statistics, owners, logits.

        Raises:
            NetworkError: Naming what has changed.
        """
        state.check(self.state)

    def served(self) -> Served:
        """What must be stored to answer for all tasks, by part of `Memory`."""
        return state.served(self.state, self.settings.cross_block)

    def size(self) -> Memory:
        """The bytes of what must be stored to answer for all tasks."""
        return measured(self.served())

    def capacity(self) -> dict[str, float]:
        """By group, the share of channels that no task owns; empty before the first task."""
        return capacity.left(self.state.owners)

    def save(self, path: str | Path) -> None:
        """Write everything that has been learned to one file, in the place of an earlier stream there.

        Args:
            path: Of the file; it appears with all of its bytes, or not at all.

        Raises:
            ArtefactError: It cannot be written, or the file there is something else than a stream.
        """
        store.write(Path(path), self.state, self.settings, self.seed, network=self._spec, notices=self.notices)

    @staticmethod
    def load(path: str | Path, backbone: Given | None = None) -> ContinualLearner:
        """Read a stream back, to answer and to learn more; nothing in the file is run.

        Args:
            path: Of the file.
            backbone: What the stream was begun with, unless that is a `NetworkSpec`, which the file knows.

        Raises:
            ArtefactError: The file is damaged, newer than this library, or of another backbone.
        """
        file = store.read(Path(path))
        with store.source(file, backbone) as source:
            learner = ContinualLearner(source, settings=file.settings, seed=file.seed)
        learner._go_on(file)
        return learner

    @property
    def _next(self) -> int:
        return len(self.tasks)

    def _go_on(self, file: store.File) -> None:
        """Take over a stream that was saved."""
        changed = dict(lasting(file.settings).items() - lasting(self.settings).items())
        if file.seed != self.seed or changed:
            stored = [f"seed {file.seed}", *(f"{name} {value}" for name, value in sorted(changed.items()))]
            raise SettingsError(
                f"{self._directory} holds a stream of {', '.join(stored)}: take the same, or another directory"
            )
        self.state, self.notices = store.restored(file, self.state.backbone), file.notices

    def _folder(self) -> Path | None:
        """Where the training of the next task is kept."""
        return None if self._directory is None else self._directory / f"task-{self._next}"

    def _split(self, train: Source, taught: Lesson) -> tuple[Examples, Examples]:
        """What is trained on, and what is held out of it to choose the best epoch."""
        refuse_repeats(train)
        return taught.examples.split(self.settings.held_out, derived_seed(self.seed, Stage.SPLIT, self._next))

    def _prepared(self, taught: Lesson) -> tuple[State, nn.Module]:
        """The state with its groups known, and a fresh head for the task."""
        before = self.state
        if not before.groups:
            check_initialised(before.backbone)
            features_of(before.backbone, taught.inputs)
            check_stored(before.backbone, self._make, taught.inputs)
            kind, seconds = self.settings.head, self.settings.graph_seconds
            groups = units.find(before.backbone, kind, taught.inputs, seconds)
            before = replace(before, groups=groups, owners=ownership.unowned(groups))
        if capacity.exhausted(before.owners):
            capacity.refuse_exhausted(self.settings, taught.name, self._next)
            if self.settings.exhausted is Exhausted.EXPAND:
                before = expand.expanded(before, self.settings, derived_seed(self.seed, Stage.GROW, self._next))
        features = features_of(before.backbone, taught.inputs)
        seed = derived_seed(self.seed, Stage.HEAD, self._next)
        return before, make_head(self.settings.head, features, len(taught.examples.classes), seed)

    def _trained(self, begun: Attempt, taught: Lesson, parts: tuple[Examples, Examples], folder: Path | None) -> State:
        attempts.claim(folder, begun)
        seed = derived_seed(self.seed, Stage.TRAIN, begun.task)
        with attempts.held(begun, begun.network):
            trained = train_network(
                begun.network,
                *parts,
                self.settings.training,
                seed=seed,
                label=f"structured, {taught.name}",
                directory=folder,
            )
        network = trained.network
        if not isinstance(network, TaskNetwork):
            raise TypeError(type(network).__name__)
        return attempts.commit(begun, network, taught, trained.held_out_accuracy)

    def _workbench(self, begun: Attempt) -> nn.Module:
        """The backbone that training loops of users get: one module for all tasks, with the values of an attempt."""
        if self._bench is None or not attempts.fits(self._bench, begun):
            self._bench = copy.deepcopy(begun.network.backbone)
        attempts.fill(self._bench, begun)
        return self._bench

    def _replace(self, before: State, after: State) -> None:
        """Take over a new state, once it has been saved: a failure or an interruption leaves the old one."""
        task = after.tasks[-1]
        if len(before.tasks) != self._next:
            raise SettingsError(f"another task was learned while {task.name!r} was: nothing of it is kept")
        number = len(before.tasks)
        taken = {name: (owner == number).nonzero().flatten() for name, owner in after.owners.items()}
        notice = capacity.notice(taken, before.owners, task.name)
        wider, was = state.widths_of(before.groups), state.widths_of(self.state.groups)
        if self.tasks and wider != was:
            grown = ", ".join(f"{width} to {wider[name]}" for name, width in was.items())
            notice = f"Task {task.name!r} found no free channel: the network has grown (channels by group: {grown})."
        notices = self.notices if notice is None else (*self.notices, notice)
        store.check_unchanged(self._stream, self.tasks)
        if self._stream is not None:
            store.write(self._stream, after, self.settings, self.seed, network=self._spec, notices=notices)
        self.state, self.notices = after, notices
