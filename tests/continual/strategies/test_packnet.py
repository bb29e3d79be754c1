"""PackNet: owners of single weights, what pruning keeps, and what each task may still change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structured_ensembles.continual.learner.memory import owner_bits, packed
from structured_ensembles.continual.strategies._masked import Partial
from structured_ensembles.continual.strategies.packnet import NOBODY, PackNet, survivors
from structured_ensembles.data.sources import as_float
from structured_ensembles.options.choices import Capacity, Optimiser
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.training import loop
from structured_ensembles.training.limits import limited

from ..oracles import unpacked

WEIGHTS = {"0.weight": 8 * 1 * 9, "4.weight": 12 * 8 * 9}


@pytest.fixture
def learner(tiny_backbone, tiny_settings):
    return PackNet(tiny_backbone, tiny_settings())


def weights_of(learner: PackNet, task: int) -> dict[str, torch.Tensor]:
    backbone = learner.network(task).backbone
    return {name: backbone.get_parameter(name).detach() for name in WEIGHTS}


def logits(learner: PackNet, tasks, upto: int) -> list[torch.Tensor]:
    with torch.no_grad():
        return [learner.network(n)(as_float(task.test.images)) for n, task in enumerate(tasks[:upto])]


@pytest.mark.parametrize(
    "decaying",
    [
        TrainingSettings(epochs=2, batch_size=16, learning_rate=0.05, weight_decay=0.1),
        TrainingSettings(
            epochs=2, batch_size=16, optimiser=Optimiser.ADAM, nesterov=False, learning_rate=0.02, weight_decay=0.1
        ),
        TrainingSettings(
            epochs=2, batch_size=16, optimiser=Optimiser.ADAMW, nesterov=False, learning_rate=0.02, weight_decay=0.1
        ),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_past_weights_stay_to_the_bit_and_free_ones_learn(learner, tiny_stream, decaying):
    tasks = tiny_stream((2, 3, 2, 2))
    learner.settings = replace(learner.settings, training=decaying)
    fresh = dict(learner.draw_backbone(0).named_parameters())
    learner.learn(tasks[0])
    weights, answers, owners = weights_of(learner, 0), logits(learner, tasks, 1), dict(learner.owners)
    for task in tasks[1:]:
        learner.learn(task)
    assert all(map(torch.equal, answers, logits(learner, tasks, 1)))
    for name, weight in weights_of(learner, 1).items():
        past, new = owners[name] == 0, learner.owners[name] == 1
        assert torch.equal(weight[past], weights[name][past])
        assert not weights[name][new].any()
        assert (weight[new] != fresh[name].detach()[new]).float().mean() > 0.9
        assert not weight[~past & ~new].any()


def test_free_weights_of_the_second_task_move_under_the_loss_alone(learner, tiny_stream):
    """Without any decay: what moves them is the gradient, which reaches them only if they are part of the network."""
    first, second, _ = tiny_stream()
    learner.learn(first)
    fresh = dict(learner.draw_backbone(0).named_parameters())
    learner.learn(second)
    for name, weight in weights_of(learner, 1).items():
        own = learner.owners[name] == 1
        moved = (weight - fresh[name].detach())[own].abs()
        assert (moved > 1e-4).float().mean() > 0.9


def test_every_task_gets_its_share_of_what_is_free(learner, tiny_stream):
    for task in tiny_stream():
        learner.learn(task)
    for name, total in WEIGHTS.items():
        owners = learner.owners[name]
        counts = [int((owners == task).sum()) for task in (0, 1, 2)]
        # Each takes half of what is free, and no weight has two owners.
        assert counts == [total // 2, total // 4, total // 8]
        assert owners.dtype == torch.int16
        assert learner.capacity()[name.removesuffix(".weight")] == 1 / 8
        sizes = [int((weights_of(learner, task)[name] != 0).sum()) for task in (0, 1, 2)]
        assert sizes == [counts[0], sum(counts[:2]), sum(counts)]


def test_equal_shares_leave_nothing_and_a_task_too_many_learns_a_head(learner, tiny_stream):
    learner.settings = replace(learner.settings, capacity=Capacity.EQUAL, tasks=3)
    tasks = tiny_stream((2, 2, 2, 2))
    for task in tasks[:3]:
        learner.learn(task)
    for name, total in WEIGHTS.items():
        assert [int((learner.owners[name] == task).sum()) for task in (0, 1, 2)] == [total // 3] * 3
    before = logits(learner, tasks, 3)
    learner.learn(tasks[3])
    assert all(map(torch.equal, before, logits(learner, tasks, 3)))
    assert all(map(torch.equal, weights_of(learner, 3).values(), weights_of(learner, 2).values()))
    assert set(learner.capacity().values()) == {0.0}


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=40), st.data())
def test_the_largest_of_the_own_weights_survive(values: list[float], data):
    own = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    share = data.draw(st.floats(0.01, 1))
    kept = survivors(torch.tensor(values), torch.tensor(own), share).tolist()
    mine = sorted(abs(v) for v, o in zip(values, own, strict=True) if o)
    assert sorted(abs(v) for v, k in zip(values, kept, strict=True) if k) == mine[len(mine) - sum(kept) :]
    assert not any(k and not o for k, o in zip(kept, own, strict=True))
    assert sum(kept) - 1 < share * len(mine) <= sum(kept)


def test_what_an_optimiser_does_to_the_others_nobody_sees():
    own = torch.tensor([[True, False], [False, True]])
    part = Partial(torch.ones(2, 2), own, torch.full((2, 2), 7.0))
    part().sum().backward()
    assert torch.equal(part.start.grad, own.float())
    with torch.no_grad():
        part.start.fill_(-3)
    assert part().tolist() == [[-3, 7], [7, -3]]


@pytest.mark.parametrize(("epochs", "expected"), [(1, [1]), (2, [1, 1]), (3, [2, 1]), (7, [5, 2]), (30, [20, 10])])
def test_pruning_falls_inside_the_budget(learner, tiny_stream, monkeypatch, epochs: int, expected: list[int]):
    asked, train = [], loop.train

    def counted(network, train_set, held_out, settings, **rest):
        asked.append(limited(settings, len(train_set)).epochs)
        return train(network, train_set, held_out, replace(settings, epochs=1), **rest)

    monkeypatch.setattr(loop, "train", counted)
    learner.settings = replace(
        learner.settings, training=replace(learner.settings.training, epochs=100, max_steps=3 * epochs)
    )
    learner.learn(tiny_stream()[0])  # 48 images in batches of 16
    assert asked == expected
    assert int((weights_of(learner, 0)["4.weight"] != 0).sum()) == WEIGHTS["4.weight"] // 2


def test_what_is_served_is_enough_to_rebuild_every_task(learner, tiny_stream):
    tasks = tiny_stream()
    for task in tasks:
        learner.learn(task)
    served = learner.served()
    for name, count in WEIGHTS.items():
        owners = unpacked(served["masks"][name], owner_bits(3), count) + NOBODY
        weight = torch.zeros(count)
        weight[owners != NOBODY] = served["shared"][name]
        for task in (0, 1, 2):
            read = torch.where((owners != NOBODY) & (owners <= task), weight, 0.0)
            assert torch.equal(read, weights_of(learner, task)[name].flatten())
    # One bias of 12; two norms of 8 and 12 channels with four numbers each.
    owned = sum(count * 7 // 8 for count in WEIGHTS.values())
    memory = learner.memory()
    assert memory.shared == 4 * (owned + 3 * 12)
    assert memory.normalisation == 4 * 3 * 4 * (8 + 12)
    assert memory.masks == sum(2 * count // 8 for count in WEIGHTS.values())


def test_an_untaught_learner_needs_nothing(learner):
    assert learner.memory().total == 0


def test_the_owners_of_ten_tasks_take_four_bits_a_weight():
    weights = 2_304_864  # of half-VGG11
    owners = torch.arange(weights) % 11 + NOBODY
    assert packed(owners - NOBODY, owner_bits(10)).nbytes == weights // 2
