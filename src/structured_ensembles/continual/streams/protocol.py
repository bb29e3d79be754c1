"""Measuring a strategy on a stream: learn a task, measure ALL tasks so far, go on to the next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from structured_ensembles.continual.learner.memory import Memory
from structured_ensembles.continual.learner.tasks import Task, check_stream
from structured_ensembles.continual.strategies.base import Strategy
from structured_ensembles.continual.streams import metrics
from structured_ensembles.continual.streams.metrics import Matrix, StreamMetrics
from structured_ensembles.data.sources.records import Split, as_float
from structured_ensembles.errors import SettingsError
from structured_ensembles.methods.fitting import device
from structured_ensembles.networks import modules

NOT_MEASURED = float("nan")


@dataclass(frozen=True)
class Step:
    """What was measured after one task.

    Attributes:
        task: The name of the task that was learned.
        seconds: How long learning it took, measuring not included.
        accuracies: One for each of the T tasks of the stream, on its test images; NaN for those still to come, which
            have no output layer yet.
        memory: The bytes that the strategy needs for all tasks so far.
        marginal_bytes: By how much their sum grew with this task; with the first one it grew from 0.
        capacity: By layer, the share that is left; None where the strategy takes nothing.
    """

    task: str
    seconds: float
    accuracies: tuple[float, ...]
    memory: Memory
    marginal_bytes: int
    capacity: Mapping[str, float] | None


@dataclass(frozen=True)
class StreamResult:
    """What came of one strategy on one stream.

    Attributes:
        strategy: Its name.
        seed: Of everything random in it.
        steps: One a task, in the order of the stream.
    """

    strategy: str
    seed: int
    steps: tuple[Step, ...]

    @property
    def accuracies(self) -> Matrix:
        """R: row i after task i, column j on task j."""
        return [step.accuracies for step in self.steps]

    @property
    def seconds(self) -> float:
        """How long learning took in all."""
        return sum(step.seconds for step in self.steps)

    def metrics(self, single: StreamResult | None = None, joint: StreamResult | None = None) -> StreamMetrics:
        """The numbers of the stream.

        Args:
            single: Of single-task networks on the same stream.
            joint: Of joint training on the same stream.

        Raises:
            DataError: The stream has not been learned to its end, or that of ``single`` or ``joint`` is another.
        """
        references = [None if result is None else result.accuracies for result in (single, joint)]
        return metrics.measure(self.accuracies, *references)


def run(strategy: Strategy, tasks: Sequence[Task], directory: Path | None = None) -> StreamResult:
    """Learn a stream from its beginning to its end, and measure all the way; see `steps`.

    Raises:
        SettingsError: The strategy has learned something already: what was measured then is not known here.
    """
    if strategy.tasks:
        raise SettingsError(f"this strategy has learned {len(strategy.tasks)} tasks already: begin with a fresh one")
    return StreamResult(strategy.name, strategy.seed, tuple(steps(strategy, tasks, directory)))


def steps(strategy: Strategy, tasks: Sequence[Task], directory: Path | None = None) -> Iterator[Step]:
    """Learn the tasks that the strategy has not learned yet, and measure after each.

    Every accuracy is measured when it is reported, also where nothing can have changed.

    Args:
        strategy: Has learned none of the tasks, or the first ones of them.
        tasks: T of them.
        directory: Where trainings are kept, a folder for each task.

    Raises:
        DataError: A task is unsound, of another shape than the first, or there twice; before anything is learned.
        SettingsError: The strategy has learned other tasks.
    """
    check_stream(tasks)
    _check_begun(strategy, tasks)
    for number in range(len(strategy.tasks), len(tasks)):
        before = strategy.memory().total if number else 0
        started = time.perf_counter()
        strategy.learn(tasks[number], directory / f"task_{number}" if directory else None)
        seconds = time.perf_counter() - started
        yield _measured(strategy, tasks, before, seconds)


def accuracy(network: nn.Module, split: Split, batch_size: int = 256) -> float:
    """The share of images whose largest logit is that of their label, in evaluation mode.

    Args:
        network: From float32 pixels (B, C, H, W) to logits (B, K); it is moved to a GPU if there is one.
        split: What is answered.
        batch_size: So many images are run at a time.
    """
    where = device()
    network.to(where)
    parts = zip(torch.split(split.images, batch_size), torch.split(split.labels, batch_size), strict=True)
    with torch.no_grad(), modules.in_mode(network, training=False):
        right = [int((network(as_float(x).to(where)).argmax(1).cpu() == labels).sum()) for x, labels in parts]
    return sum(right) / len(split)


def _measured(strategy: Strategy, tasks: Sequence[Task], before: int, seconds: float) -> Step:
    learned = len(strategy.tasks)
    found = [accuracy(strategy.network(number), tasks[number].test) for number in range(learned)]
    memory = strategy.memory()
    return Step(
        task=tasks[learned - 1].name,
        seconds=seconds,
        accuracies=(*found, *[NOT_MEASURED] * (len(tasks) - learned)),
        memory=memory,
        marginal_bytes=memory.total - before,
        capacity=strategy.capacity(),
    )


def _check_begun(strategy: Strategy, tasks: Sequence[Task]) -> None:
    learned = [task.fingerprint for task in strategy.tasks]
    if learned != [task.fingerprint for task in tasks[: len(learned)]]:
        names = ", ".join(task.name for task in strategy.tasks)
        raise SettingsError(f"this strategy has learned other tasks ({names}): give it the stream that it began with")
