"""Which channels can be owned, and which backbones are refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import relu
from torch.nn.utils.parametrizations import weight_norm

from structured_ensembles.continual.learner.backbones import backbone
from structured_ensembles.continual.learner.units import find
from structured_ensembles.errors import NetworkError
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.options.choices import HeadKind

from ..learners import published_half_vgg11

EXAMPLE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def groups_of(network, kind=HeadKind.LINEAR, example=EXAMPLE):
    return {group.name: group.channels for group in find(network, kind, example)}


@pytest.mark.parametrize("kind", HeadKind)
def test_every_layer_of_the_published_backbone_is_a_group(kind):
    groups = groups_of(published_half_vgg11((3, 32, 32)), kind, torch.rand(2, 3, 32, 32))
    assert list(groups.values()) == [32, 64, 128, 128, 256, 256, 256, 256]


def test_a_residual_stream_has_one_owner_a_channel():
    groups = groups_of(backbone(NetworkSpec("resnet20", (3, 8, 8), 2)))
    stream, inner = [16, 32, 64], [16] * 3 + [32] * 3 + [64] * 3
    assert sorted(groups.values()) == sorted(stream + inner)


def test_a_depthwise_convolution_has_the_owners_of_what_it_reads():
    tied = [nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6), nn.PReLU(6)]
    assert groups_of(nn.Sequential(*tied, nn.Conv2d(6, 5, 1))) == {"backbone.0": 6, "backbone.4": 5}


class Averaging(nn.Module):
    """Keeps the mean square of what it sees."""

    def __init__(self):
        super().__init__()
        self.register_buffer("square", torch.ones(()))

    def forward(self, inputs):
        if self.training:
            self.square += inputs.square().mean()
        return inputs / self.square.sqrt()


def test_a_statistic_that_no_channel_owns_is_refused():
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Averaging(), nn.Conv2d(8, 8, 3))
    with pytest.raises(NetworkError, match=r"square of '2' \(Averaging\) changes in training and is no task's own"):
        find(backbone, HeadKind.LINEAR, torch.rand(2, 3, 8, 8))
    assert backbone[2].square == 1


def test_the_backbone_is_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3))
    before = copy.deepcopy(network.state_dict())
    find(network, HeadKind.LINEAR, EXAMPLE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training


class Scale(nn.Module):
    """A parameter that belongs to no layer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return relu(self.conv(images)) * self.scale


class Twice(nn.Module):
    """One layer used in two places."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.again = nn.Conv2d(4, 4, 1)

    def forward(self, images):
        return self.again(relu(self.again(relu(self.first(images)))))


class Gain(nn.Conv2d):
    """A convolution with a parameter more than others."""

    def __init__(self):
        super().__init__(3, 4, 1)
        self.gain = nn.Parameter(torch.ones(4))


def shared():
    first, second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second)


REFUSED = {
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3)),
        r"without forgetting: weight of '0' \(Conv2d\) is no task's own; weight of '1' \(GroupNorm\)",
    ),
    "layer norm": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.LayerNorm(8)), "LayerNorm"),
    "one slope": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.Conv2d(8, 6, 3)),
        r"weight of '1' \(PReLU\) is no task's own\. Every parameter must belong",
    ),
    "norm of the image": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3)),
        r"weight of '0' \(BatchNorm2d\)",
    ),
    "one channel": (
        lambda: nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU(), nn.Conv2d(1, 6, 3)),
        r"weight of '0' \(Conv2d\) is no task's own",
    ),
    "bare parameter": (Scale, r"scale of the backbone itself \(scale\) is no task's own"),
    "one layer": (lambda: nn.Conv2d(3, 8, 3), "one Conv2d layer by itself: put it into an nn.Sequential"),
    "unknown parameter": (lambda: nn.Sequential(Gain(), nn.ReLU()), r"gain of '0' \(Gain\)"),
    "cumulative": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=None)),
        "layer '1' averages statistics over all batches of all tasks: give it a momentum",
    ),
    "no statistics": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)),
        "layer '1' keeps no running statistics",
    ),
    "synchronised": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.SyncBatchNorm(8)),
        r"layer '1' \(SyncBatchNorm\) normalises over processes",
    ),
    "weight norm": (lambda: nn.Sequential(weight_norm(nn.Conv2d(3, 8, 3))), "reparametrised weight"),
    "used twice": (Twice, r"module 'backbone\.again' is used 2 times"),
    "shared": (shared, "are one tensor: shared weights"),
    "no backbone": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2)), r"the backbone gives shape \(2, 8, 36\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_kept_is_refused_by_name(case):
    make, message = REFUSED[case]
    with pytest.raises(NetworkError, match=message):
        find(make(), HeadKind.LINEAR, EXAMPLE)
