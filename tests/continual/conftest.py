"""What the tests of strategies share: tasks that take no time, a small backbone, and settings to match."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from structured_ensembles.continual.learner.memory import Memory
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.results.records import StreamCell, StreamRun
from structured_ensembles.continual.streams.protocol import Step, StreamResult
from structured_ensembles.data.sources import Split
from structured_ensembles.options.choices import Optimiser
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.options.training import TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def images(count: int, classes: int, seed: int) -> Split:
    """Noise with one row, chosen by the label and the task, much brighter than the rest."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 100, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(count), 0, (labels + 2 * (seed // 10)) % 8] += 150
    return Split(pixels, labels)


def tiny_stream(classes: tuple[int, ...] = (2, 3, 2), train: int = 48) -> list[Task]:
    """Tasks of so many classes each, easy to learn."""
    return [
        Task(
            f"task {number}",
            images(train, count, 10 * number),
            images(12, count, 10 * number + 1),
            images(24, count, 10 * number + 2),
            tuple(f"class {label}" for label in range(count)),
        )
        for number, count in enumerate(classes)
    ]


def tiny_backbone() -> nn.Module:
    """Two convolutions with BatchNorm, one without a bias: (B, 1, 8, 8) to maps (B, 12, 4, 4)."""
    return nn.Sequential(
        *[nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()],
    )


def tiny_settings(epochs: int = 2) -> ContinualSettings:
    """Short trainings in small batches, after a search of one epoch."""
    return ContinualSettings(
        training=TrainingSettings(
            epochs=epochs, batch_size=16, optimiser=Optimiser.ADAM, learning_rate=0.02, nesterov=False, weight_decay=0
        ),
        search=SearchSettings(epochs=1, batch_size=16),
    )


@pytest.fixture(name="tiny_stream")
def _tiny_stream() -> Callable[..., list[Task]]:
    return tiny_stream


@pytest.fixture(name="tiny_backbone")
def _tiny_backbone() -> Callable[[], nn.Module]:
    return tiny_backbone


@pytest.fixture(name="tiny_settings")
def _tiny_settings() -> Callable[..., ContinualSettings]:
    return tiny_settings


STRATEGIES = ("structured", "single_task", "joint", "naive", "packnet")


def made_up_result(name: str, seed: int, tasks: int, shift: float = 0) -> StreamResult:
    """A stream that nobody learned: naive forgets, structured and packnet take half of what is free."""
    learned = [0.9 + 0.008 * ((7 * seed + 3 * task + len(name)) % 11) + shift for task in range(tasks)]
    lost, takes = 0.05 if name == "naive" else 0, name in {"structured", "packnet"}
    networks = {"single_task": [i + 1 for i in range(tasks)], "structured": [1 - 0.5 ** (i + 1) for i in range(tasks)]}
    sizes = [
        Memory(int(100_000 * share), 800, 200 if takes else 0, 500 * (i + 1), 10**6 if name == "joint" else 0)
        for i, share in enumerate(networks.get(name, [1] * tasks))
    ]
    totals = [0, *(size.total for size in sizes)]
    return StreamResult(
        name,
        seed,
        tuple(
            Step(
                f"{2 * i}, {2 * i + 1}",
                1.5,
                tuple(learned[j] - lost * (i - j) if j <= i else math.nan for j in range(tasks)),
                sizes[i],
                totals[i + 1] - totals[i],
                {f"backbone.{layer}": 0.5 ** (i + 1) for layer in "ab"} if takes else None,
            )
            for i in range(tasks)
        ),
    )


@pytest.fixture
def made_up() -> Callable[..., dict[str, list[StreamResult]]]:
    """Results by strategy, a few seeds each."""

    def make(
        names: Sequence[str] = STRATEGIES, tasks: int = 4, seeds: int = 3, shift: float = 0
    ) -> dict[str, list[StreamResult]]:
        return {name: [made_up_result(name, seed, tasks, shift) for seed in range(seeds)] for name in names}

    return make


@pytest.fixture
def as_runs() -> Callable[..., list[StreamRun]]:
    """The runs that results by strategy came from; the first of them knows who owns which channels."""

    def make(
        results: Mapping[str, Sequence[StreamResult]], owners: Mapping[str, Sequence[int]] | None = None
    ) -> list[StreamRun]:
        runs = [StreamRun(StreamCell(name, run.seed), result=run) for name, of_one in results.items() for run in of_one]
        return [replace(run, owners=owners) if run is runs[0] else run for run in runs]

    return make
