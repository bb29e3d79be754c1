"""What the base class does for every strategy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from structured_ensembles.continual.strategies.base import served_backbone, served_heads
from structured_ensembles.continual.strategies.naive import Naive
from structured_ensembles.continual.strategies.single_task import SingleTask
from structured_ensembles.errors import SettingsError


class Careless(Naive):
    """Assigns what it has learned before it is through."""

    def _learn(self, task, directory):
        super()._learn(task, directory)
        self.leftover = True
        if len(self.tasks) == 1:
            raise KeyboardInterrupt


def test_a_strategy_that_fails_half_way_is_as_it_was(tiny_backbone, tiny_settings, tiny_stream):
    learner, (first, second, _) = Careless(tiny_backbone, tiny_settings(), 0), tiny_stream()
    learner.learn(first)
    shared, heads = learner.shared, learner.heads
    del learner.leftover
    with pytest.raises(KeyboardInterrupt):
        learner.learn(second)
    assert (learner.shared, learner.heads) == (shared, heads)
    assert len(learner.tasks) == 1
    assert not hasattr(learner, "leftover")


def test_strategies_of_one_seed_draw_the_same_backbone_and_heads(tiny_backbone, tiny_settings, tiny_stream):
    task = tiny_stream()[0]
    one, same, other = (
        Naive(tiny_backbone, tiny_settings(), 0),
        *(SingleTask(tiny_backbone, tiny_settings(), seed) for seed in (0, 1)),
    )
    drawn = [
        (learner.draw_backbone(0), learner.make_head(learner.draw_backbone(0), task, 2))
        for learner in (one, same, other)
    ]
    (backbone, head), (backbone_, head_), (backbone__, head__) = drawn
    assert torch.equal(backbone[0].weight, backbone_[0].weight)
    assert torch.equal(head[-1].weight, head_[-1].weight)
    assert not torch.equal(backbone[0].weight, backbone__[0].weight)
    assert not torch.equal(head[-1].weight, head__[-1].weight)
    assert not torch.equal(head[-1].weight, one.make_head(backbone, task, 1)[-1].weight)


def test_a_negative_seed_is_refused(tiny_backbone, tiny_settings):
    with pytest.raises(SettingsError, match="seed -1 is negative"):
        Naive(tiny_backbone, tiny_settings(), -1)


def test_a_backbone_is_served_in_parts_without_its_counters():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
            self.scale = nn.Parameter(torch.ones(1))
            self.register_buffer("mean", torch.zeros(3))

    network = nn.Sequential(Block(), nn.GroupNorm(1, 3), nn.PReLU(), nn.LayerNorm(3))
    parts = served_backbone(network, "7.")
    assert set(parts["normalisation"]) == {
        *(f"7.0.norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
        *(f"7.{number}.{name}" for number in (1, 3) for name in ("weight", "bias")),
    }
    assert set(parts["shared"]) == {"7.0.conv.weight", "7.0.conv.bias", "7.0.scale", "7.0.mean", "7.2.weight"}
    lone = served_backbone(nn.BatchNorm2d(2))
    assert (set(lone["normalisation"]), lone["shared"]) == ({"weight", "bias", "running_mean", "running_var"}, {})


@pytest.mark.parametrize("task", [1, -1, 0.5, True, None])
def test_tasks_are_named_by_numbers(tiny_backbone, tiny_settings, tiny_stream, task):
    naive = Naive(tiny_backbone, tiny_settings(1), 0)
    with pytest.raises(SettingsError, match="task 0 is unknown: no task has been learned"):
        naive.network(0)
    naive.learn(tiny_stream()[0])
    with pytest.raises(SettingsError, match=rf"task {task} is unknown: tasks 0 to 0 have been learned; name one by"):
        naive.network(task)


def test_heads_are_served_by_number():
    assert list(served_heads([nn.Linear(2, 2), nn.Linear(2, 3)])) == ["0.weight", "0.bias", "1.weight", "1.bias"]
