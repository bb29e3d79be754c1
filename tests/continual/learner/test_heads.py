"""Heads and the networks that they make with a backbone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from structured_ensembles.continual.learner.heads import TaskNetwork, make_head, probe_head
from structured_ensembles.errors import NetworkError
from structured_ensembles.options.choices import HeadKind


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_linear_head_pools_maps():
    head = make_head(HeadKind.LINEAR, (6, 3, 3), 4, seed=0)
    maps = torch.rand(2, 6, 3, 3)
    expected = maps.mean(dim=(2, 3)) @ head[-1].weight.T + head[-1].bias
    torch.testing.assert_close(head(maps), expected)
    assert parameters(make_head(HeadKind.LINEAR, (256, 1, 1), 10, seed=0)) == 256 * 10 + 10 == 2_570


def test_published_head_has_the_published_size():
    with torch.device("meta"):
        head = make_head(HeadKind.PUBLISHED, (256, 7, 7), 2, seed=0)
    width = 256 * 7 * 7
    layers = [(width, width // 2), (width // 2, width // 4), (width // 4, 2)]
    assert parameters(head) == sum(before * after + after for before, after in layers) == 98_360_642


def test_heads_take_vectors_and_are_decided_by_their_seed():
    for kind in HeadKind:
        first, again, other = (make_head(kind, (16,), 3, seed).state_dict() for seed in (1, 1, 2))
        assert make_head(kind, (16,), 3, 0)(torch.rand(5, 16)).shape == (5, 3)
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    make_head(HeadKind.PUBLISHED, (16,), 3, seed=0)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("features", [(12,), (12, 2, 2)], ids=str)
@pytest.mark.parametrize("kind", HeadKind)
def test_the_probe_reads_what_the_head_reads(kind, features):
    head, probe = make_head(kind, features, 5, 0), probe_head(kind, features)
    first = next((name, layer.in_features) for name, layer in head.named_modules() if isinstance(layer, nn.Linear))
    same = next((name, layer.in_features) for name, layer in probe.named_modules() if isinstance(layer, nn.Linear))
    assert first == same


def test_a_task_network_is_its_head_on_its_backbone():
    network = TaskNetwork(nn.Linear(4, 6), make_head(HeadKind.LINEAR, (6,), 3, 0))
    inputs = torch.rand(2, 4)
    assert torch.equal(network(inputs), network.head(network.backbone(inputs)))
    assert {name.partition(".")[0] for name in network.state_dict()} == {"backbone", "head"}


@pytest.mark.parametrize(
    ("features", "kind", "message"),
    [
        ((4, 5), HeadKind.LINEAR, r"\(B, 4, 5\): it must end in features"),
        ((3,), HeadKind.PUBLISHED, "at least 4 features, and there are 3: use head linear"),
    ],
)
def test_features_that_no_head_takes(features, kind, message):
    with pytest.raises(NetworkError, match=message):
        make_head(kind, features, 2, 0)
