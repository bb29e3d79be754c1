"""What every strategy for a stream of tasks is: it learns one task, answers for each, and says what that takes."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from structured_ensembles.channels import kinds
from structured_ensembles.continual.learner.backbones import features_of
from structured_ensembles.continual.learner.heads import TaskNetwork, make_head
from structured_ensembles.continual.learner.memory import Memory, Served, measured
from structured_ensembles.continual.learner.tasks import Stage, Task, check_number, check_shape, check_task
from structured_ensembles.data.examples import Examples
from structured_ensembles.data.sources.records import Split
from structured_ensembles.errors import DataError
from structured_ensembles.files.marks import claim
from structured_ensembles.networks.modules import draw
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.seeding import derived_seed
from structured_ensembles.training import loop
from structured_ensembles.types import Architecture

Network = TypeVar("Network", bound=nn.Module)

_MARK = "task.sha256"
"""Of a task's directory, what tells its task from others."""


@dataclass(frozen=True)
class Remembered:
    """What is remembered of a task that was learned.

    Attributes:
        name: Of the task.
        classes: The names of its labels.
        input_shape: (C, H, W).
        fingerprint: Of its training images and labels.
    """

    name: str
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    fingerprint: str


class Strategy(ABC):
    """A way to learn one task after the other.

    A subclass says in `_learn` how a task is learned. It keeps what it has learned in attributes that it REPLACES and
    never changes in place, so that a task which fails half-way can be taken back.

    Args:
        backbone: Makes a network from inputs (B, C, H, W) to features (B, d) or maps (B, C, H, W).
        settings: How tasks are learned: the training is the same for all strategies.
        seed: Of everything random, at least 0.

    Attributes:
        tasks: What has been learned so far.
    """

    name: ClassVar[str]
    """What tables and command lines call it."""

    forgets: ClassVar[bool]
    """Whether learning a task may change the answers for earlier ones; where not, they stay the same to the bit."""
    tasks: tuple[Remembered, ...] = ()

    def __init__(self, backbone: Architecture, settings: ContinualSettings, seed: int = 0) -> None:
        derived_seed(seed)
        self.backbone, self.settings, self.seed = backbone, settings, seed

    def learn(self, task: Task, directory: Path | None = None) -> None:
        """Learn one more task: all of it, or, after an error or an interruption, nothing.

        Args:
            task: What is learned.
            directory: Where its training is kept, so that it goes on there when it is stopped and called again.

        Raises:
            DataError: The task is unsound, was learned before, or has images of another shape.
            SettingsError: The loss becomes infinite or NaN, or the directory holds another training.
            NetworkError: The backbone fails on the images.
        """
        learned = self._checked(task)
        found = f"{learned.fingerprint} {Examples.of(task.held_out).fingerprint}"
        refusal = f"{directory} holds the training of another task: take another directory, or delete it"
        claim(directory, found, refusal, _MARK)
        before = dict(vars(self))
        try:
            self._learn(task, directory)
            self.tasks = (*self.tasks, learned)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    @abstractmethod
    def _learn(self, task: Task, directory: Path | None) -> None:
        """Learn a sound task, the one of number ``len(self.tasks)``."""

    def network(self, task: int) -> nn.Module:
        """A network of its own that answers for a task: inputs (B, C, H, W) to logits (B, K_t), in evaluation mode.

        Raises:
            SettingsError: No such task has been learned.
        """
        return copy.deepcopy(self._network(check_number(task, len(self.tasks)))).eval()

    @abstractmethod
    def _network(self, task: int) -> nn.Module:
        """The network of a task that has been learned; it may share memory with others."""

    @abstractmethod
    def served(self) -> Served:
        """What must be stored to answer for all tasks and to learn the next one, by part of `Memory`."""

    def memory(self) -> Memory:
        """The bytes of `served`."""
        return measured(self.served())

    def capacity(self) -> Mapping[str, float] | None:
        """By layer, the share that no task has taken yet; None where nothing is taken."""
        return None

    def draw_backbone(self, number: int) -> nn.Module:
        """A freshly initialised backbone: number 0 is the same in all strategies of one seed."""
        return draw(self.backbone, derived_seed(self.seed, Stage.BACKBONE, number))

    def make_head(self, backbone: nn.Module, task: Task, number: int) -> nn.Module:
        """The freshly initialised head of a task: the same in all strategies of one seed."""
        example = torch.zeros(2, *task.input_shape)
        features = features_of(backbone, example)
        return make_head(self.settings.head, features, len(task.classes), derived_seed(self.seed, Stage.HEAD, number))

    def train(
        self,
        network: Network,
        train: Split,
        held_out: Split,
        directory: Path | None,
        *,
        settings: TrainingSettings | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    ) -> Network:
        """A trained copy of a network, in evaluation mode: the best epoch by held-out accuracy (`training.loop.train`).

        Args:
            network: From inputs to logits.
            train: What is learned from.
            held_out: What chooses the best epoch.
            directory: Of `learn`; a strategy that trains several times takes a folder in it for each.
            settings: Where they are not those of all tasks.
            loss: Of logits (B, K) and labels (B,), the mean over the batch.
        """
        trained = loop.train(
            network,
            Examples.of(train),
            Examples.of(held_out),
            settings or self.settings.training,
            seed=derived_seed(self.seed, Stage.TRAIN, len(self.tasks)),
            label=f"{self.name}, task {len(self.tasks) + 1}",
            directory=directory,
            loss=loss,
        )
        return cast("Network", trained.network)  # a copy of what was given

    def _checked(self, task: Task) -> Remembered:
        check_task(task)
        learned = Remembered(task.name, task.classes, task.input_shape, task.fingerprint)
        if self.tasks:
            check_shape(f"task {task.name!r}", task.train.images, self.tasks[0].input_shape)
        for number, known in enumerate(self.tasks):
            if known.fingerprint == learned.fingerprint:
                raise DataError(f"task {task.name!r} has been learned already, as task {number} ({known.name})")
        return learned


def penalised(network: Network, penalty: Callable[[Network], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The cross-entropy, plus in training the penalty of whatever copy of a network is running.

    Hooks are copied with the network, and say which one that is.
    """
    running = [network]
    network.register_forward_pre_hook(lambda module, _: running.__setitem__(0, module))

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        plain = cross_entropy(logits, labels)
        return plain + penalty(running[0]) if running[0].training else plain

    return loss


class SharedBackbone(Strategy):
    """A strategy whose tasks have one backbone, and each a head of its own, as they are after the last task."""

    heads: tuple[nn.Module, ...] = ()

    def __init__(self, backbone: Architecture, settings: ContinualSettings, seed: int = 0) -> None:
        super().__init__(backbone, settings, seed)
        self.shared = self.draw_backbone(0)

    def start(self, task: Task) -> TaskNetwork:
        """The network that a task begins with: the backbone as it is, and a fresh head."""
        return TaskNetwork(self.shared, self.make_head(self.shared, task, len(self.tasks)))

    def _network(self, task: int) -> nn.Module:
        return TaskNetwork(self.shared, self.heads[task])

    def served(self) -> Served:
        """The backbone and the heads."""
        return {**served_backbone(self.shared), "heads": served_heads(self.heads)}


def served_backbone(backbone: nn.Module, prefix: str = "") -> dict[str, dict[str, Tensor]]:
    """The tensors of a backbone, those of normalisation layers apart; counters of batches predict nothing.

    Args:
        backbone: Any network.
        prefix: Goes before the tensors' names.
    """
    tensors = {name: value for name, value in backbone.state_dict().items() if not name.endswith(kinds.COUNTER)}
    norms = norm_names(backbone)
    return {
        "shared": {prefix + name: value for name, value in tensors.items() if name not in norms},
        "normalisation": {prefix + name: value for name, value in tensors.items() if name in norms},
    }


def served_heads(heads: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The tensors of all heads."""
    return {f"{number}.{name}": value for number, head in enumerate(heads) for name, value in head.state_dict().items()}


def norm_names(backbone: nn.Module) -> set[str]:
    """The names of the parameters and buffers of normalisation layers, those out of which nothing can be cut too."""
    return {
        name
        for prefix, module in backbone.named_modules()
        if kinds.normalises(module)
        for tensors in (module.named_parameters, module.named_buffers)
        for name, _ in tensors(prefix, recurse=False)
    }


def served_examples(splits: Sequence[Split]) -> dict[str, Tensor]:
    """The images and labels of several splits."""
    images = {f"{number}.images": split.images for number, split in enumerate(splits)}
    return images | {f"{number}.labels": split.labels for number, split in enumerate(splits)}
