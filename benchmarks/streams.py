"""Streams of tasks for docs/results.md: every strategy, memory over ten tasks, and answers without a task id."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import keeping
from structured_ensembles.continual.results.records import from_json, to_json, values
from structured_ensembles.continual.results.tables import markdown
from structured_ensembles.continual.strategies.single_task import SingleTask
from structured_ensembles.experiments import streams
from structured_ensembles.options.catalogue import STRATEGIES
from structured_ensembles.options.choices import Capacity, StreamKind
from structured_ensembles.options.plans import StreamGrid, StreamPlan
from structured_ensembles.options.streams import settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from structured_ensembles.continual.results.records import StreamRun


@dataclass(frozen=True)
class Stream:
    """One section of the page.

    Attributes:
        name: Of its folder and pictures.
        title: Its heading.
        text: What it is.
        source: Which of the sources that the benchmark is given: ``mnist`` or ``cifar``.
        kind: How the source becomes tasks.
        tasks: How many.
        epochs: At most, each task.
        capacity: How many channels a task of the structured learner takes.
        strategies: What is compared.
        seeds: How many.
        channels: Of every layer for each task, where the capacity is fixed.
        width_mult: How many times as wide as LeNet-5 the network is.
        architecture: Of `networks`.
        beside: The name of a stream of the same tasks and seeds, whose separate networks this one is measured against.
    """

    name: str
    title: str
    text: str
    source: str
    kind: StreamKind
    tasks: int
    epochs: int
    capacity: Capacity
    strategies: tuple[str, ...]
    seeds: int
    width_mult: float = 1.0
    channels: int = 8
    architecture: str = "lenet5"
    beside: str = ""

    def grid(self, source: str) -> StreamGrid:
        """What is run, on a file or folder."""
        chosen = settings()
        training = replace(chosen.training, epochs=self.epochs)
        chosen = replace(chosen, training=training, capacity=self.capacity, channels=self.channels)
        arguments = {"width_mult": self.width_mult} if self.width_mult != 1 else {}
        plan = StreamPlan(
            source,
            kind=self.kind,
            tasks=self.tasks,
            architecture=self.architecture,
            arguments=arguments,
            settings=chosen,
        )
        return StreamGrid(plan, self.strategies, tuple(range(self.seeds)))


_MNIST = Stream(
    "split-mnist",
    "Split MNIST: 5 tasks of two digits",
    "All of MNIST, LeNet-5, 2 epochs a task; the structured learner gives every task the same share of channels.",
    "mnist",
    StreamKind.SPLIT,
    5,
    2,
    Capacity.EQUAL,
    tuple(STRATEGIES),
    3,
)
_CIFAR = Stream(
    "split-cifar",
    "Split CIFAR-10, a subset: 5 tasks of two classes",
    "LeNet-5, 15 epochs a task, no augmentation; the same share of the channels for every task.",
    "cifar",
    StreamKind.SPLIT,
    5,
    15,
    Capacity.EQUAL,
    tuple(STRATEGIES),
    3,
)
STREAMS = (
    _MNIST,
    replace(
        _MNIST,
        name="split-mnist-wide",
        title="Split MNIST in one network 1.3 times as wide",
        text="LeNet-5 with 8, 21, 156 and 109 channels, otherwise as above: in the bytes that PackNet and WSN need "
        "there.",
        strategies=("structured",),
        width_mult=1.3,
        beside=_MNIST.name,
    ),
    _CIFAR,
    replace(
        _CIFAR,
        name="split-cifar-wide",
        title="Split CIFAR-10 in one network 1.6 times as wide",
        text="LeNet-5 with 10, 26, 192 and 134 channels, otherwise as above: as wide as a third of the bytes of "
        "separate networks allows, and the strategies that need no more than that.",
        strategies=("structured", "supsup", "hat"),
        width_mult=1.6,
        beside=_CIFAR.name,
    ),
    replace(
        _CIFAR,
        name="split-cifar-shared",
        title="Split CIFAR-10 in one network 2.5 times as wide, 16 channels of every layer for each task",
        text="LeNet-5 with 15, 40, 300 and 210 channels (`--network-argument width_mult=2.5 --channels 16`), otherwise "
        "as above. The first tasks take the convolutions, which are small, and all later ones read them; of the large "
        "layers each task has its part. Widths and numbers were chosen on validation images ([trial 11](lab.md)).",
        capacity=Capacity.FIXED,
        strategies=("structured", "single_task", "supsup"),
        width_mult=2.5,
        channels=16,
        beside=_CIFAR.name,
    ),
    replace(
        _CIFAR,
        name="split-cifar-vgg",
        title="The same CIFAR tasks in the published network",
        text="Half a VGG11 without normalisation (2.3 million weights), otherwise as above.",
        strategies=("structured", "single_task", "supsup", "wsn", "packnet", "hat"),
        architecture="half_vgg11",
    ),
    Stream(
        "permuted-mnist",
        "Permuted MNIST: 10 tasks",
        "LeNet-5, 1 epoch a task; every task takes half of what is free (published), so that what a task adds falls.",
        "mnist",
        StreamKind.PERMUTED,
        10,
        1,
        Capacity.GEOMETRIC,
        ("structured", "single_task"),
        1,
    ),
)


def measure(one: Stream, source: str, folder: Path, jobs: int) -> None:
    """Run what has not been run yet."""
    grid = one.grid(source)
    streams.work(grid).carry_out(streams.load(grid.plan), folder / one.name, jobs)


def section(one: Stream, folder: Path, docs: Path) -> str:
    """Its part of the page; empty if no run is known."""
    found = runs(one, folder, docs)
    if not found:
        return ""
    streams.write_pictures(found, folder / one.name)
    parts = [f"## {one.title}", f"{one.text} [Every run](results/{one.name}.json), with its seed."]
    for picture in ("accuracy", "memory"):
        if (folder / one.name / f"{picture}.png").exists():
            shutil.copy(folder / one.name / f"{picture}.png", docs / "results" / f"{one.name}-{picture}.png")
            parts.append(f"![{picture.title()} over the stream](results/{one.name}-{picture}.png)")
    parts.append(markdown(found).strip())
    if one.kind is StreamKind.PERMUTED:
        parts.append(_marginal(found))
    if one.beside:
        other = next(stream for stream in STREAMS if stream.name == one.beside)
        parts.append(_separate(found, runs(other, folder, docs)))
    return "\n\n".join(parts)


def runs(one: Stream, folder: Path, docs: Path) -> list[StreamRun]:
    """All that is known of a stream."""
    grid = one.grid("")
    found = streams.work(grid).results(folder / one.name)
    path = docs / "results" / f"{one.name}.json"
    return keeping.merged(path, grid.plan, streams.cells(grid), found, from_json, to_json)


def _marginal(found: Sequence[StreamRun]) -> str:
    """What each task added, in bytes, beside one whole backbone."""
    steps = {run.cell.strategy: run.result.steps for run in found if run.result is not None}
    added = [step.marginal_bytes for step in steps["structured"]]
    whole = steps[SingleTask.name][0].memory
    backbone_bytes = whole.shared + whole.normalisation
    share = (sum(added) - steps["structured"][-1].memory.heads) / backbone_bytes
    listed = ", ".join(f"{value:,}" for value in added)
    return (
        f"Bytes that the structured learner's tasks add, one after the other: {listed}. Without heads that is "
        f"{share:.2f} of one backbone ({backbone_bytes:,} bytes)."
    )


def _separate(runs: Sequence[StreamRun], others: Sequence[StreamRun]) -> str:
    """Every strategy against the separate networks of another stream, seed by seed."""
    alone = {run.cell.seed: values(run, others) for run in others if run.cell.strategy == SingleTask.name}
    pairs: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {}
    for run in runs:
        if run.result is not None and alone.get(run.cell.seed):
            pairs.setdefault(run.cell.strategy, []).append((values(run, runs), alone[run.cell.seed]))
    lines = [f"`{name}` {_apart(of_strategy)} ({len(of_strategy)} seeds)" for name, of_strategy in pairs.items()]
    return (
        "**Against separate networks of the usual width**, those of the section above, in average accuracy and in "
        f"bytes: {', '.join(lines)}."
    )


def _apart(pairs: Sequence[tuple[dict[str, float], dict[str, float]]]) -> str:
    """How much more accurate than separate networks, and at how many times their bytes: the means over the seeds."""
    points = fmean(100 * (ours["average_accuracy"] - alone["average_accuracy"]) for ours, alone in pairs)
    return f"{points:+.2f} points at {fmean(ours['bytes'] / alone['bytes'] for ours, alone in pairs):.2f}x"
