"""Piggyback: the first task's weights, and one bit for each of them and each later task."""

from __future__ import annotations

import pytest
import torch

from structured_ensembles.continual.learner.backbones import backbone
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies.naive import Naive
from structured_ensembles.continual.strategies.piggyback import Piggyback, above
from structured_ensembles.data.sources import Split, as_float
from structured_ensembles.errors import SettingsError
from structured_ensembles.networks import NetworkSpec

from ..learners import unpacked

WEIGHTS = {"0.weight": 8 * 1 * 9, "4.weight": 12 * 8 * 9}


@pytest.fixture
def learner(tiny_backbone, tiny_settings, tiny_stream):
    learner = Piggyback(tiny_backbone, tiny_settings())
    for task in tiny_stream():
        learner.learn(task)
    return learner


def weight_of(learner: Piggyback, task: int, name: str) -> torch.Tensor:
    return learner.network(task).backbone.get_parameter(name).detach()


def test_the_first_task_is_plain_training(learner, tiny_backbone, tiny_settings, tiny_stream):
    task = tiny_stream()[0]
    plain = Naive(tiny_backbone, tiny_settings())
    plain.learn(task)
    inputs = as_float(task.test.images)
    with torch.no_grad():
        assert torch.equal(learner.network(0)(inputs), plain.network(0)(inputs))


def test_later_tasks_leave_out_weights_and_change_none(learner):
    for name, count in WEIGHTS.items():
        first = weight_of(learner, 0, name)
        for task in (1, 2):
            later = weight_of(learner, task, name)
            assert torch.equal(later, first * learner.masks(task)[name])
            assert 0 < int((later == 0).sum()) < count
    assert not torch.equal(learner.masks(1)["4.weight"], learner.masks(2)["4.weight"])


def test_a_later_task_begins_with_all_that_the_first_one_learned(learner, tiny_stream, monkeypatch):
    begun = []

    def untrained(network, *_, **__):
        begun.append(network)
        return network

    monkeypatch.setattr(learner, "train", untrained)
    task = tiny_stream((2, 2, 2, 2))[3]
    learner.learn(task)
    inputs = as_float(task.test.images)
    with torch.no_grad():
        features = learner.network(0).backbone(inputs)
        assert torch.equal(learner.network(3).backbone(inputs), features)
        assert torch.equal(begun[0].eval()(inputs), learner.network(3)(inputs))


def test_a_real_mask_reads_from_the_threshold_on():
    scores = torch.tensor([0.004, 0.005, 0.006, -1.0, 0.01])
    assert above(scores, 5e-3)[1].tolist() == [False, True, True, False, True]


def test_norms_and_biases_are_private(learner):
    for name in ("1.weight", "1.running_mean", "4.bias"):
        values = [learner.network(task).backbone.state_dict()[name] for task in (0, 1, 2)]
        assert not torch.equal(values[0], values[1])
        assert not torch.equal(values[1], values[2])


def test_what_is_served_is_enough_to_rebuild_every_task(learner):
    served = learner.served()
    for name, count in WEIGHTS.items():
        for task in (1, 2):
            mask = unpacked(served["masks"][f"task_{task}.{name}"], 1, count).view_as(served["shared"][name])
            assert torch.equal(served["shared"][name] * mask, weight_of(learner, task, name))
    memory = learner.memory()
    # All weights and three biases; four numbers a channel and task; masks of the second and the third task.
    assert memory.shared == 4 * (sum(WEIGHTS.values()) + 3 * 12)
    assert memory.normalisation == 3 * 4 * (8 + 12) * 4
    assert memory.masks == 2 * sum(count // 8 for count in WEIGHTS.values())


def test_a_later_task_of_half_vgg11_takes_281_kib(tiny_settings, monkeypatch):
    learner = Piggyback(lambda: backbone(NetworkSpec("half_vgg11", (3, 32, 32), 2)), tiny_settings())
    monkeypatch.setattr(learner, "train", lambda network, *_, **__: network)
    sizes = []
    for number in (0, 1):
        few = Split(torch.full((4, 3, 32, 32), number, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
        learner.learn(Task(f"{number}", few, few, few, ("a", "b")))
        sizes.append(learner.memory())
    assert [size.masks for size in sizes] == [0, 2_304_864 // 8]
    assert [size.shared for size in sizes] == [4 * 2_304_864] * 2


@pytest.mark.parametrize(("start", "threshold"), [(0.01, 0.0), (0.001, 0.005), (float("inf"), 0.005), (0.1, -1.0)])
def test_masks_that_would_not_begin_whole_are_refused(start: float, threshold: float, tiny_backbone, tiny_settings):
    with pytest.raises(
        SettingsError, match=f"threshold {threshold} must be above 0 and at most start, which is {start}"
    ):
        Piggyback(tiny_backbone, tiny_settings(), start=start, threshold=threshold)
