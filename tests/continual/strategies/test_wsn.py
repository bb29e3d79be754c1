"""WSN: which weights a task reads, which of them it may still change, and what that takes to store."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structured_ensembles.continual.strategies.wsn import WSN, Winner, strongest
from structured_ensembles.data.sources import as_float
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import Optimiser
from structured_ensembles.options.training import TrainingSettings

from ..oracles import published_half_vgg11, unpacked

WEIGHTS = {"0.weight": 8 * 1 * 9, "4.weight": 12 * 8 * 9}
PRIVATE = 12
"""One layer has a bias."""


@pytest.fixture(name="learner")
def _learner(tiny_backbone, tiny_settings):
    return WSN(tiny_backbone, tiny_settings())


def logits(learner, tasks, upto):
    with torch.no_grad():
        return [learner.network(n)(as_float(task.test.images)) for n, task in enumerate(tasks[:upto])]


@pytest.mark.parametrize("optimiser", list(Optimiser))
def test_what_a_task_reads_stays_to_the_bit_whatever_the_optimiser(learner, tiny_stream, optimiser):
    """Momentum and decay move weights whose gradient is zero."""
    decaying = TrainingSettings(
        epochs=2, batch_size=16, optimiser=optimiser, learning_rate=0.02, nesterov=False, weight_decay=0.1
    )
    learner.settings = replace(learner.settings, training=decaying)
    tasks = tiny_stream((2, 3, 2, 2))
    learner.learn(tasks[0])
    answers, weights = logits(learner, tasks, 1), learner.read_by(0)
    for task in tasks[1:]:
        learner.learn(task)
    assert all(map(torch.equal, answers, logits(learner, tasks, 1)))
    assert all(torch.equal(weights[name], learner.read_by(0)[name]) for name in WEIGHTS)


def test_a_task_trains_what_it_reads_first_and_the_rest_is_as_drawn(learner, tiny_stream):
    drawn = {name: learner.weight(name).clone() for name in WEIGHTS}
    first, second, _ = tiny_stream()
    learner.learn(first)
    after_first = {name: learner.weight(name).clone() for name in WEIGHTS}
    learner.learn(second)
    for name in WEIGHTS:
        before, mine = learner.masks(0)[name], learner.masks(1)[name]
        moved = learner.weight(name) != after_first[name]
        assert (before & mine).any(), "masks overlap: entries of the first task are read in place"
        assert not moved[before].any()
        assert moved[mine & ~before].float().mean() > 0.9
        assert torch.equal(learner.weight(name)[~before & ~mine], drawn[name][~before & ~mine])


@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
def test_a_task_reads_its_share_of_every_layer(tiny_backbone, tiny_settings, tiny_stream, keep):
    learner = WSN(tiny_backbone, tiny_settings(1), keep=keep)
    assert learner.capacity() == {"0": 1.0, "4": 1.0}
    for task in tiny_stream()[:2]:
        learner.learn(task)
    for name, count in WEIGHTS.items():
        masks = [learner.masks(task)[name] for task in (0, 1)]
        assert [int(mask.sum()) for mask in masks] == [math.ceil(keep * count)] * 2
        taken = int((masks[0] | masks[1]).sum())
        assert learner.capacity()[name.removesuffix(".weight")] == pytest.approx(1 - taken / count)
        assert not learner.network(1).backbone.get_parameter(name)[~masks[1]].any()


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=30), st.data())
def test_the_largest_absolute_scores_win(values, data):
    count = data.draw(st.integers(1, len(values)))
    strength, chosen = strongest(torch.tensor(values), count)
    assert strength.tolist() == [abs(value) for value in values]
    assert int(chosen.sum()) == count
    rest = strength[~chosen]
    assert not len(rest) or strength[chosen].min() >= rest.max()


def test_gradients_reach_free_entries_that_are_read_and_all_scores():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    used = torch.tensor([[True, False], [False, False]])
    winner = Winner(weight, used, 0.5, torch.Generator().manual_seed(0))
    with torch.no_grad():
        winner.mask.scores.copy_(torch.tensor([[0.9, -0.8], [-0.1, 0.2]]))
    upstream = torch.tensor([[1.0, 10.0], [100.0, 1000.0]])
    made = winner()
    assert made.tolist() == [[1, 2], [0, 0]]
    (made * upstream).sum().backward()
    assert winner.values.start.grad.tolist() == [[0, 10], [0, 0]]
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert torch.equal(winner.mask.scores.grad, upstream * weight * signs)


def test_what_is_served_is_enough_to_rebuild_every_task(learner, tiny_stream):
    for task in tiny_stream():
        learner.learn(task)
    served = learner.served()
    for name, count in WEIGHTS.items():
        masks = [unpacked(served["masks"][f"task_{task}.{name}"], 1, count).bool() for task in (0, 1, 2)]
        union = masks[0] | masks[1] | masks[2]
        weight = torch.zeros(count)
        weight[union] = served["shared"][name]
        for task, mask in enumerate(masks):
            read = learner.network(task).backbone.get_parameter(name).detach().flatten()
            assert torch.equal(torch.where(mask, weight, 0.0), read)
    taken = sum(len(served["shared"][name]) for name in WEIGHTS)
    assert taken < sum(WEIGHTS.values())
    memory = learner.memory()
    assert memory.shared == 4 * (taken + 3 * PRIVATE)
    assert memory.normalisation == 4 * 3 * 4 * (8 + 12)
    assert memory.masks == 3 * sum(count // 8 for count in WEIGHTS.values())


def test_a_mask_of_half_vgg11_takes_one_bit_a_weight(tiny_settings):
    learner = WSN(lambda: published_half_vgg11((3, 32, 32)), tiny_settings())
    assert learner.memory().total == 0
    learner.chosen = ({name: torch.ones_like(learner.weight(name), dtype=torch.bool) for name in learner.weights},)
    memory = learner.memory()
    assert (memory.shared, memory.masks) == (4 * 2_304_864, 2_304_864 / 8)
    assert round(memory.masks / 1024) == 281


def test_a_share_must_be_one(tiny_backbone, tiny_settings):
    for keep in (0, 1.5, float("nan")):
        with pytest.raises(SettingsError, match=rf"keep {keep} is outside \(0, 1\]: 0.5 lets"):
            WSN(tiny_backbone, tiny_settings(), keep=keep)
