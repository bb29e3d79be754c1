"""The accuracy matrix is measured, never copied; time, memory and what is left are told for each task."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from structured_ensembles.continual.learner.memory import Memory
from structured_ensembles.continual.strategies.joint import Joint
from structured_ensembles.continual.strategies.naive import Naive
from structured_ensembles.continual.strategies.single_task import SingleTask
from structured_ensembles.continual.streams import protocol
from structured_ensembles.continual.streams.protocol import Step, StreamResult, accuracy, run, steps
from structured_ensembles.data.sources import Split
from structured_ensembles.errors import DataError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def make(tiny_backbone, tiny_settings):
    return lambda kind=Naive, epochs=2: kind(tiny_backbone, tiny_settings(epochs), 3)


def rows(result: StreamResult) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in row] for row in result.accuracies]


def test_every_task_so_far_is_measured_after_each(make, tiny_stream):
    tasks, learner, expected = tiny_stream(), make(), []
    for i, task in enumerate(tasks):
        learner.learn(task)
        found = [accuracy(learner.network(j), tasks[j].test) for j in range(i + 1)]
        expected.append([*found, *[None] * (2 - i)])
    result = run(make(), tasks)
    assert rows(result) == expected
    assert (result.strategy, result.seed) == ("naive", 3)
    assert [step.task for step in result.steps] == ["task 0", "task 1", "task 2"]


def test_accuracy_counts_the_largest_logits_in_evaluation_mode():
    class Brightest(nn.Module):
        """Answers with the brighter of two pixels; in training mode with the darker one."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            assert pixels.dtype == torch.float32
            assert float(pixels.max()) <= 1
            return pixels.flatten(1) * (-1 if self.training else 1)

    images = torch.tensor([[9, 200], [9, 8], [3, 255], [7, 6], [1, 2]], dtype=torch.uint8).view(5, 1, 1, 2)
    network = Brightest().train()
    assert accuracy(network, Split(images, torch.tensor([1, 0, 0, 1, 1])), batch_size=2) == 3 / 5
    assert network.training


def test_a_weight_that_changes_on_the_quiet_shows_in_backward_transfer(make, tiny_stream):
    class Leaky(SingleTask):
        """Breaks the network of task 0 whenever another task is learned."""

        def _learn(self, task, directory):
            super()._learn(task, directory)
            if len(self.networks) > 1:
                with torch.no_grad():
                    self.networks[0].head[-1].weight.neg_()
                    self.networks[0].head[-1].bias.neg_()

    sound = run(make(SingleTask, epochs=12), tiny_stream((2, 2)))
    leaky = run(make(Leaky, epochs=12), tiny_stream((2, 2)))
    assert sound.metrics().backward_transfer_lopez_paz == 0
    assert leaky.accuracies[0] == pytest.approx(sound.accuracies[0], nan_ok=True)
    assert leaky.metrics().backward_transfer_lopez_paz == pytest.approx(1 - 2 * sound.accuracies[0][0])


def test_seconds_are_those_of_learning_alone(make, tiny_stream, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(protocol.time, "perf_counter", lambda: clock[0])
    learner, measured = make(), protocol.accuracy

    def slow_learn(task, directory):
        clock[0] += 5
        Naive._learn(learner, task, directory)

    def slow_measure(*args):
        clock[0] += 100
        return measured(*args)

    monkeypatch.setattr(learner, "_learn", slow_learn)
    monkeypatch.setattr(protocol, "accuracy", slow_measure)
    result = run(learner, tiny_stream())
    assert [step.seconds for step in result.steps] == [5, 5, 5]
    assert result.seconds == 15


def test_memory_and_its_growth_are_told_after_each_task(make, tiny_stream):
    result, learner = run(make(SingleTask), tiny_stream()), make(SingleTask)
    for step, task in zip(result.steps, tiny_stream(), strict=True):
        learner.learn(task)
        assert step.memory == learner.memory()
    totals = [step.memory.total for step in result.steps]
    assert [step.marginal_bytes for step in result.steps] == [totals[0], totals[1] - totals[0], totals[2] - totals[1]]
    assert totals[0] > 0


def test_what_is_left_is_told_where_something_is_taken(make, tiny_stream):
    class Taking(Naive):
        def capacity(self) -> Mapping[str, float]:
            return {"layer": 0.5 ** len(self.tasks)}

    assert [step.capacity for step in run(make(), tiny_stream()).steps] == [None] * 3
    assert [step.capacity for step in run(make(Taking), tiny_stream()).steps] == [
        {"layer": 0.5},
        {"layer": 0.25},
        {"layer": 0.125},
    ]


def test_metrics_against_references(make, tiny_stream):
    naive, single, joint = (run(make(kind), tiny_stream()) for kind in (Naive, SingleTask, Joint))
    found = naive.metrics(single, joint)
    diagonals = [[result.accuracies[j][j] for j in range(3)] for result in (naive, single, joint)]
    assert found.transfer == pytest.approx(sum(a - b for a, b in zip(*diagonals[:2], strict=True)) / 3)
    assert found.intransigence == pytest.approx((sum(diagonals[2]) - sum(diagonals[0])) / 3)
    assert math.isnan(naive.metrics().transfer)
    assert single.metrics().backward_transfer_diaz_rodriguez == 0


def test_a_stream_goes_on_after_the_last_task_that_was_learned(make, tiny_stream):
    tasks, learner = tiny_stream(), make()
    begun = [step for _, step in zip(range(2), steps(learner, tasks), strict=False)]
    rest = list(steps(learner, tasks))
    whole = run(make(), tasks)
    for found, expected in zip([*begun, *rest], whole.steps, strict=True):
        assert replace(found, seconds=0, accuracies=()) == replace(expected, seconds=0, accuracies=())
        assert found.accuracies == pytest.approx(expected.accuracies, nan_ok=True)


def test_trainings_are_kept_in_a_folder_for_each_task(make, tiny_stream, tmp_path):
    run(make(), tiny_stream(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["task_0", "task_1", "task_2"]


def test_a_bad_task_is_refused_before_anything_is_learned(make, tiny_stream):
    learner, tasks = make(), tiny_stream()
    with pytest.raises(DataError, match="test set of task 'task 2' has no images"):
        run(learner, [*tasks[:2], replace(tasks[2], test=Split(tasks[2].test.images[:0], tasks[2].test.labels[:0]))])
    with pytest.raises(DataError, match="task 'task 0' has the training images of task 'task 0'"):
        run(learner, [*tasks, tasks[0]])
    with pytest.raises(SettingsError, match="a stream of 0 tasks"):
        run(learner, [])
    assert learner.tasks == ()


def test_a_strategy_that_has_begun_elsewhere_is_refused(make, tiny_stream):
    learner, tasks = make(), tiny_stream()
    learner.learn(tasks[1])
    with pytest.raises(SettingsError, match="this strategy has learned 1 tasks already: begin with a fresh one"):
        run(learner, tasks)
    with pytest.raises(SettingsError, match=r"learned other tasks \(task 1\): give it the stream that it began with"):
        next(steps(learner, tasks))


def test_an_unfinished_stream_has_no_metrics():
    step = Step("a", 1.0, (0.5, math.nan), Memory(), 0, None)
    with pytest.raises(DataError, match=r"1 rows of \[2\] accuracies"):
        StreamResult("naive", 0, (step,)).metrics()
