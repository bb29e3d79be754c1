"""The strategies that bound the others: naive from below, single-task and joint from above."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from structured_ensembles.continual.strategies.joint import Joint
from structured_ensembles.continual.strategies.naive import Naive
from structured_ensembles.continual.strategies.single_task import SingleTask
from structured_ensembles.continual.streams.protocol import accuracy
from structured_ensembles.training import loop


@pytest.fixture
def make(tiny_backbone, tiny_settings):
    return lambda kind, **settings: kind(tiny_backbone, tiny_settings(**settings), 0)


def weights(network: torch.nn.Module) -> list[torch.Tensor]:
    return list(network.state_dict().values())


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(map(torch.equal, weights(one), weights(other)))


def test_the_first_task_is_the_same_for_naive_and_single_task(make, tiny_stream):
    naive, single, task = make(Naive), make(SingleTask), tiny_stream()[0]
    naive.learn(task)
    single.learn(task)
    assert equal(naive.network(0), single.network(0))


def test_naive_goes_on_from_the_last_task_and_leaves_old_heads(make, tiny_stream, monkeypatch):
    learner, tasks = make(Naive), tiny_stream()
    learner.learn(tasks[0])
    shared, head = learner.shared, learner.heads[0]
    started, train = [], loop.train

    def noted(network, *rest, **options):
        started.append(network)
        return train(network, *rest, **options)

    monkeypatch.setattr(loop, "train", noted)
    learner.learn(tasks[1])
    assert equal(started[0].backbone, shared)
    assert learner.heads[0] is head
    assert not equal(learner.shared, shared)


def test_naive_forgets_what_single_task_keeps(make, tiny_stream):
    naive, single = make(Naive, epochs=12), make(SingleTask, epochs=12)
    for number, task in enumerate(tiny_stream((4, 4, 4))):
        naive.learn(task)
        single.learn(task)
        if number == 0:
            first = task.test
            assert accuracy(naive.network(0), first) == 1
    assert accuracy(naive.network(0), first) < 1
    assert accuracy(single.network(0), first) == 1


def test_single_task_networks_are_drawn_each_for_itself(make):
    learner = make(SingleTask)
    assert not equal(learner.draw_backbone(0), learner.draw_backbone(1))
    assert equal(learner.draw_backbone(1), learner.draw_backbone(1))


def test_single_task_memory_grows_by_a_whole_network(make, tiny_stream):
    learner, found = make(SingleTask), []
    for task in tiny_stream():
        learner.learn(task)
        found.append(learner.memory())
    assert [memory.shared for memory in found] == [found[0].shared * n for n in (1, 2, 3)]
    assert [memory.normalisation for memory in found] == [4 * 4 * (8 + 12) * n for n in (1, 2, 3)]


def test_shared_backbones_are_counted_once_without_counters(make, tiny_stream):
    learner, found = make(Naive), []
    for task in tiny_stream()[:2]:
        learner.learn(task)
        found.append(learner.memory())
    assert {memory.shared for memory in found} == {4 * (8 * 9 + 12 * 8 * 9 + 12)}
    assert {memory.normalisation for memory in found} == {4 * 4 * (8 + 12)}
    assert [memory.heads for memory in found] == [4 * 2 * 13, 4 * (2 + 3) * 13]


def test_joint_trains_afresh_on_everything_so_far(make, tiny_stream, monkeypatch):
    learner, tasks, calls, train = make(Joint), tiny_stream(), [], loop.train

    def noted(network, train_set, held_out, settings, **rest):
        calls.append((network, len(train_set), len(held_out), settings.max_steps))
        return train(network, train_set, held_out, settings, **rest)

    monkeypatch.setattr(loop, "train", noted)
    learner.settings = replace(learner.settings, training=replace(learner.settings.training, max_steps=6))
    for task in tasks:
        learner.learn(task)
    assert [call[1:] for call in calls] == [(48, 12, 6), (96, 24, 12), (144, 36, 18)]
    assert all(equal(call[0].backbone, learner.draw_backbone(0)) for call in calls)
    assert [len(call[0].heads) for call in calls] == [1, 2, 3]


def test_joint_forgets_nothing_that_matters_and_keeps_all_data(make, tiny_stream):
    learner, tasks = make(Joint, epochs=12), tiny_stream((2, 2, 2))
    for task in tasks:
        learner.learn(task)
    assert all(accuracy(learner.network(number), task.test) > 0.95 for number, task in enumerate(tasks))
    assert learner.memory().data == 3 * (48 + 12) * (64 + 8)  # bytes of an image of 8x8 and of its label
