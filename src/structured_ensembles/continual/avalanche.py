"""Avalanche: the structured learner in that library's training loops, with its streams, metrics and loggers.

The only file that knows Avalanche (https://avalanche.continualai.org, version 0.6), which the extra ``avalanche``
installs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn
from torch.utils.data import Dataset

from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.errors import DataError, SettingsError

try:
    from avalanche.core import SupervisedPlugin
    from avalanche.models import MultiTaskModule
except ImportError as error:
    raise ImportError(
        f"structured_ensembles.continual.avalanche needs Avalanche ({error}): pip install "
        "'structured-ensembles[avalanche]'"
    ) from error

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from structured_ensembles.continual.learner.learner import ContinualLearner

ABSENT = -1000.0
"""The logit of a class that is none of the task's; what Avalanche's own heads give."""

_NAME = "Avalanche task "
"""How the learner's tasks are named, before the task label."""


class Experience(Protocol):
    """What is read of Avalanche's experiences."""

    task_labels: Collection[int]
    dataset: Any


class Strategy(Protocol):
    """What is used of Avalanche's strategies."""

    model: nn.Module
    device: torch.device
    experience: Experience

    def make_optimizer(self, *, reset_optimizer_state: bool) -> None:
        """Hand the model's parameters of now to the optimiser."""


@dataclass(frozen=True, eq=False)
class _Begun:
    """A task that is being trained: its label, the labels of its classes, and what commits it or takes it back."""

    label: int
    classes: tuple[int, ...]
    context: AbstractContextManager[TaskNetwork]


class StructuredModel(MultiTaskModule):  # type: ignore[misc]  # Avalanche has no types
    """A learner as a model that answers by task label; train it with a `StructuredPlugin`.

    Logits are (B, K) with a column for every class label seen so far, `ABSENT` for those of other tasks: labels may be
    those of the whole stream or begin at 0 in each task. For a task that has not been learned all logits are zero.

    Args:
        learner: What learns. Its search, ranking and capacity settings are used, its training settings are not. The
            tasks that it learned in an earlier `StructuredModel` keep their labels, also after it was saved and loaded.

    Attributes:
        learner: The same, for what Avalanche has no word for: export, size, the check for forgetting.
        network: What the optimiser trains.

    Example:
        >>> model = StructuredModel(ContinualLearner(backbone))  # doctest: +SKIP
        >>> optimiser = torch.optim.Adam(model.parameters())  # doctest: +SKIP
        >>> strategy = Naive(model=model, optimizer=optimiser, plugins=[StructuredPlugin()])  # doctest: +SKIP
        >>> for experience in task_incremental_benchmark(benchmark).train_stream:  # doctest: +SKIP
        ...     strategy.train(experience)
    """

    max_class_label: int  # of Avalanche: how many columns the logits have

    def __init__(self, learner: ContinualLearner) -> None:
        super().__init__()
        self.learner = learner
        # Until the first task: optimisers refuse a model without parameters.
        self.network = TaskNetwork(copy.deepcopy(learner.state.backbone), nn.Identity())
        self._begun: _Begun | None = None
        self._answering: tuple[int, nn.Module] | None = None
        self.known_train_tasks_labels = set(self._numbers)
        self.max_class_label = max((max(self._classes(number)) + 1 for number in self._numbers.values()), default=0)

    def adaptation(self, experience: Experience) -> None:
        """Take notice of an experience's classes; called by Avalanche.

        Raises:
            DataError: It is to be learned, and is not one new task.
        """
        if self.training:
            self._check(experience)
        self.max_class_label = max(self.max_class_label, max(_classes(experience)) + 1)

    def forward_single_task(self, x: Tensor, task_label: int) -> Tensor:
        """The logits of one task: inputs (B, ...) to (B, K).

        Raises:
            SettingsError: In training, if the task was not begun.
        """
        found = self._of(task_label, x.device)
        if found is None:
            return x.new_zeros(len(x), self.max_class_label)
        network, classes = found
        logits: Tensor = network(x)
        wide = logits.new_full((len(x), self.max_class_label), ABSENT)
        wide[:, list(classes)] = logits
        return wide

    def begin(self, experience: Experience) -> None:
        """Choose the channels of an experience's task, and make `network` the one to train; called by the plugin.

        A task that was begun before and not committed, because its training was stopped, is given up.

        Raises:
            DataError: As `ContinualLearner.task`, or the experience is not one new task.
            NetworkError: As `ContinualLearner.task`.
            SettingsError: As `ContinualLearner.task`.
        """
        self._give_up()
        label, classes = self._check(experience), _classes(experience)
        examples = _Numbered(experience.dataset.train(), classes)
        context = self.learner.task(examples, name=f"{_NAME}{label}", classes=list(map(str, classes)))
        self.network = context.__enter__()
        self._begun = _Begun(label, classes, context)
        self.known_train_tasks_labels.add(label)

    def commit(self) -> None:
        """Take over what was trained: from now on it never changes; called by the plugin.

        Raises:
            SettingsError: A weight is infinite or NaN; nothing is taken over.
        """
        begun, self._begun = self._begun, None
        if begun is None:
            raise SettingsError("there is no task to commit: begin one first")
        self.network.cpu()  # where the learner keeps everything
        begun.context.__exit__(None, None, None)

    @property
    def _numbers(self) -> dict[int, int]:
        """By task label, the numbers of the learner's tasks."""
        names = [record.name for record in self.learner.tasks]
        return {int(name.removeprefix(_NAME)): task for task, name in enumerate(names) if name.startswith(_NAME)}

    def _classes(self, number: int) -> list[int]:
        """The labels of the classes of one of the learner's tasks."""
        return [int(name) for name in self.learner.tasks[number].classes]

    def _give_up(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.context.__exit__(RuntimeError, RuntimeError("the training was stopped"), None)

    def _check(self, experience: Experience) -> int:
        """The task label of an experience that is one new task."""
        labels = sorted(set(getattr(experience, "task_labels", ())))
        if len(labels) != 1:
            raise DataError(
                f"the experience has {len(labels)} task labels {labels}: a task needs one of its own, as "
                "task_incremental_benchmark(benchmark) or with_task_labels(benchmark) gives it"
            )
        if (number := self._numbers.get(labels[0])) is not None:
            raise DataError(
                f"task label {labels[0]} has been learned already, as task {number}: a task is learned once, so give "
                "each experience a label of its own (task_incremental_benchmark(benchmark, reset_task_labels=True))"
            )
        return int(labels[0])

    def _of(self, label: int, device: torch.device) -> tuple[nn.Module, Sequence[int]] | None:
        """The network of a task and the labels of its classes; None if it has not been learned."""
        if self._begun is not None and self._begun.label == label:
            return self.network, self._begun.classes
        number = self._numbers.get(label)
        if number is None:
            if self.training:
                raise SettingsError(f"task label {label} was not begun: train with plugins=[StructuredPlugin()]")
            return None
        # One at a time: Avalanche evaluates task by task.
        if self._answering is None or self._answering[0] != number:
            self._answering = number, self.learner.network(number)
        return self._answering[1].to(device), self._classes(number)


class StructuredPlugin(SupervisedPlugin):  # type: ignore[misc]  # Avalanche has no types
    """Makes every experience that Avalanche trains on a task of a `StructuredModel`'s learner.

    Before it, channels are chosen and the optimiser starts afresh; after it, they are the task's for ever. Whatever the
    optimiser does in between, what belongs to older tasks stays the same to the bit.
    """

    def before_training_exp(self, strategy: Strategy, *_args: object, **_named: object) -> None:
        """Begin the task."""
        model = _model_of(strategy)
        model.begin(strategy.experience)
        model.to(strategy.device)
        strategy.make_optimizer(reset_optimizer_state=True)

    def after_training_exp(self, strategy: Strategy, *_args: object, **_named: object) -> None:
        """Commit the task."""
        _model_of(strategy).commit()


class _Numbered(Dataset["tuple[Any, int]"]):
    """The examples of an experience without their task labels, classes numbered from 0.

    Args:
        data: An `AvalancheDataset` of (x, y, task label).
        classes: Its labels y, in the order of the numbers.
    """

    def __init__(self, data: Any, classes: Sequence[int]) -> None:  # noqa: ANN401 (Avalanche has no types)
        numbers = {label: number for number, label in enumerate(classes)}
        self.data = data
        self.targets = [numbers[int(label)] for label in data.targets]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.data[index][0], self.targets[index]


def _classes(experience: Experience) -> tuple[int, ...]:
    """The labels of an experience's classes; not every benchmark says them itself."""
    return tuple(sorted({int(label) for label in experience.dataset.targets}))


def _model_of(strategy: Strategy) -> StructuredModel:
    if not isinstance(strategy.model, StructuredModel):
        raise SettingsError(
            f"the model of the strategy is a {type(strategy.model).__name__}: StructuredPlugin trains a "
            "StructuredModel(ContinualLearner(backbone))"
        )
    return strategy.model
