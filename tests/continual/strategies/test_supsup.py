"""SupSup: frozen signs, exact densities, and masks that take one bit a weight and task."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from structured_ensembles.continual.learner.backbones import backbone
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies.supsup import SupSup, by_size
from structured_ensembles.data.sources import Split
from structured_ensembles.errors import SettingsError
from structured_ensembles.networks import NetworkSpec

from ..oracles import unpacked

WEIGHTS = {"0.weight": 8 * 1 * 9, "4.weight": 12 * 8 * 9}


@pytest.fixture
def learner(tiny_backbone, tiny_settings, tiny_stream):
    learner = SupSup(tiny_backbone, tiny_settings())
    for task in tiny_stream()[:2]:
        learner.learn(task)
    return learner


@pytest.mark.parametrize("pruned", [0.1, 0.5, 0.7, 0.98])
def test_the_density_is_one_less_the_pruned_share(pruned: float):
    scores = torch.randn(100, 40, generator=torch.Generator().manual_seed(0))
    size, chosen = by_size(scores, 1 - pruned)
    assert int(chosen.sum()) == round((1 - pruned) * 4000)
    assert float(size[chosen].min()) > float(size[~chosen].max())
    # Not only positive scores are chosen, as they are where the absolute value is forgotten.
    assert 0.3 < float((scores[chosen] < 0).float().mean()) < 0.7


def test_one_weight_at_least_is_read():
    assert by_size(torch.tensor([[0.1, -0.2]]), 0.01)[1].tolist() == [[False, True]]


def test_weights_are_signs_times_a_constant_and_never_change(tiny_backbone, tiny_settings, tiny_stream, learner):
    before = SupSup(tiny_backbone, tiny_settings())
    for name, count in WEIGHTS.items():
        weight = before.weight(name)
        size = math.sqrt(2 / (0.5 * weight[0].numel()))
        assert torch.equal(weight.abs(), torch.full_like(weight, size))
        assert 0.3 < float((weight > 0).float().mean()) < 0.7
        assert torch.equal(learner.weight(name), weight)
        for task in (0, 1):
            read = learner.network(task).backbone.get_parameter(name).detach()
            assert int((read != 0).sum()) == count // 2
            assert torch.equal(read, weight * learner.masks(task)[name])
    assert not torch.equal(learner.masks(0)["4.weight"], learner.masks(1)["4.weight"])


def test_training_changes_the_mask(learner, tiny_settings, tiny_backbone, tiny_stream, monkeypatch):
    """The mask after training is not that of the scores as they were drawn."""
    untrained = SupSup(tiny_backbone, tiny_settings())
    monkeypatch.setattr(untrained, "train", lambda network, *_, **__: network)
    untrained.learn(tiny_stream()[0])
    changed = (untrained.masks(0)["4.weight"] != learner.masks(0)["4.weight"]).float().mean()
    assert 0.01 < changed < 0.5


def test_norms_have_private_statistics_and_no_scale(learner):
    first, second = (learner.network(task).backbone[1] for task in (0, 1))
    assert first.weight is None
    assert first.bias is None
    assert not torch.equal(first.running_mean, second.running_mean)


def test_a_norm_that_starts_at_zero_does_not_kill_its_branch(tiny_settings):
    def dead() -> nn.Module:
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
        nn.init.zeros_(network[1].weight)
        return network

    shared = SupSup(dead, tiny_settings()).shared
    assert shared(torch.rand(3, 1, 8, 8)).any()


def test_what_is_served_is_enough_to_rebuild_every_task(learner):
    served = learner.served()
    for name, count in WEIGHTS.items():
        signs = unpacked(served["shared"][f"sign.{name}"], 1, count) * 2 - 1
        weight = signs * served["shared"][f"size.{name}"]
        for task in (0, 1):
            mask = unpacked(served["masks"][f"task_{task}.{name}"], 1, count)
            assert torch.equal(weight * mask, learner.network(task).backbone.get_parameter(name).detach().flatten())
    memory = learner.memory()
    # Signs and one size for each weight, and one frozen bias; means and variances of two tasks.
    assert memory.shared == sum(count // 8 + 4 for count in WEIGHTS.values()) + 12 * 4
    assert memory.normalisation == 2 * 2 * (8 + 12) * 4
    assert memory.masks == 2 * sum(count // 8 for count in WEIGHTS.values())


def test_a_task_of_half_vgg11_takes_281_kib(tiny_settings, monkeypatch):
    learner = SupSup(lambda: backbone(NetworkSpec("half_vgg11", (3, 32, 32), 2)), tiny_settings())
    monkeypatch.setattr(learner, "train", lambda network, *_, **__: network)
    sizes = []
    for number in (0, 1):
        few = Split(torch.full((4, 3, 32, 32), number, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
        learner.learn(Task(f"{number}", few, few, few, ("a", "b")))
        sizes.append(learner.memory())
    assert [size.masks for size in sizes] == [2_304_864 // 8, 2 * 2_304_864 // 8]
    assert round((sizes[1].total - sizes[0].total - 4 * 514) / 1024) == 281  # all but the head
    assert sizes[1].shared == sizes[0].shared == 2_304_864 // 8 + 8 * 4


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5, float("nan")])
def test_impossible_shares_are_refused(keep: float, tiny_backbone, tiny_settings):
    with pytest.raises(SettingsError, match=rf"keep {keep} is outside \(0, 1\]"):
        SupSup(tiny_backbone, tiny_settings(), keep=keep)
