"""What owners of channels mean for every single weight, against slow loops over the entries."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from structured_ensembles.continual.learner import ownership
from structured_ensembles.continual.learner.heads import TaskNetwork, make_head
from structured_ensembles.continual.learner.ownership import NOBODY
from structured_ensembles.continual.learner.units import find
from structured_ensembles.options.choices import CrossBlock, HeadKind, Norms

WIDTH, OUT = 4, 3
OWNERS = {"backbone.0": torch.tensor([0, 2, NOBODY, 1]), "backbone.5": torch.tensor([1, 0, NOBODY])}
POSITIONS = 2 * 2
"""Of each channel after the flatten."""


def backbone():
    """A convolution tied to a depthwise one, flattened into a linear layer, on images (2, 2, 2)."""
    tied = [nn.Conv2d(2, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.PReLU(WIDTH), nn.Conv2d(WIDTH, WIDTH, 1, groups=WIDTH)]
    return nn.Sequential(*tied, nn.Flatten(), nn.Linear(WIDTH * POSITIONS, OUT))


@pytest.fixture(scope="module")
def network():
    return TaskNetwork(backbone(), make_head(HeadKind.LINEAR, (OUT,), 2, 0))


@pytest.fixture(scope="module")
def groups(network):
    return find(network.backbone, HeadKind.LINEAR, torch.rand(2, 2, 2, 2))


def owners_of(name, index):
    """The owners of the row and of the column of one entry; None for what no channel makes."""
    first, last = OWNERS["backbone.0"].tolist(), OWNERS["backbone.5"].tolist()
    if name == "backbone.0.weight":
        return first[index[0]], 0  # a channel of the image
    if name == "backbone.5.weight":
        return last[index[0]], first[index[1] // POSITIONS]
    owner = (last if name.startswith("backbone.5") else first)[index[0]]
    return owner, owner


def expected(network, holds):
    """By tensor, whether something holds of the owners of each entry."""
    found = {}
    for name, tensor in ownership.tensors(network).items():
        if tensor.dim():
            entries = product(*map(range, tensor.shape))
            found[name] = torch.tensor([holds(*owners_of(name, index)) for index in entries]).view(tensor.shape)
    return found


def check(network, masks, holds):
    slow = expected(network, holds)
    assert masks.keys() == slow.keys()
    for name, mask in masks.items():
        assert torch.equal(mask.expand_as(slow[name]), slow[name]), name


def used(owner, task):
    return 0 <= owner <= task


@pytest.mark.parametrize("task", range(3))
def test_what_a_task_uses_and_cuts_off(network, groups, task):
    ends = ownership.ends(network, groups, OWNERS)
    mine = {name: ownership.used(of, task) for name, of in ends.items()}
    check(network, mine, lambda row, column: used(row, task) and used(column, task))
    off = {name: ownership.cut_off(of, task) for name, of in ends.items()}
    check(network, off, lambda row, column: row == task and not used(column, task))


@pytest.mark.parametrize("task", range(3))
@pytest.mark.parametrize("rule", CrossBlock)
def test_only_what_the_rule_allows_may_change(network, groups, rule, task):
    masks = ownership.trainable(network, ownership.ends(network, groups, OWNERS), task, rule, Norms.OWNER)

    def may(row, column):
        if rule is CrossBlock.TRAINABLE:
            return row >= 0 and column >= 0 and max(row, column) == task
        return row == task and used(column, task)

    check(network, masks, may)


def test_tasks_change_all_of_their_own_norms(network, groups):
    ends = ownership.ends(network, groups, OWNERS)
    masks = ownership.trainable(network, ends, 1, CrossBlock.ZERO, Norms.TASK)
    norm = {f"backbone.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    assert set(ownership.norm_tensors(network)) == norm
    assert all(masks[name].tolist() == [True, False, False, True] for name in norm)
    assert masks["backbone.0.bias"].tolist() == [False, False, False, True]


@pytest.mark.parametrize("rule", CrossBlock)
def test_what_has_to_be_stored(network, groups, rule):
    stored = {name: ownership.stored(of, rule) for name, of in ownership.ends(network, groups, OWNERS).items()}
    zero = rule is CrossBlock.ZERO
    check(network, stored, lambda row, column: row >= 0 and column >= 0 and (column <= row or not zero))


def test_channels_change_hands_once(groups):
    fresh = ownership.unowned(groups)
    assert {name: len(channels) for name, channels in ownership.free(fresh).items()} == {
        "backbone.0": WIDTH,
        "backbone.5": OUT,
    }
    after = ownership.claimed(fresh, {"backbone.0": torch.tensor([1, 3])}, 0)
    assert after["backbone.0"].tolist() == [-1, 0, -1, 0]
    assert fresh["backbone.0"].tolist() == [-1] * WIDTH
    assert ownership.active(OWNERS, 1)["backbone.0"].tolist() == [0, 3]
    assert ownership.free(OWNERS)["backbone.0"].tolist() == [2]
