from __future__ import annotations

import torch
from torch import nn

from structured_ensembles import networks
from structured_ensembles.networks import NetworkSpec, Normalised


def test_channels_are_normalised_one_by_one():
    images = torch.rand(2, 3, 4, 5)
    seen = Normalised(nn.Identity(), (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))(images)
    for channel, (mean, std) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 4.0)]):
        torch.testing.assert_close(seen[:, channel], (images[:, channel] - mean) / std)


def test_statistics_follow_the_network_but_are_not_stored():
    network = Normalised(nn.Conv2d(1, 2, 1), (0.5,), (0.25,))
    assert list(network.state_dict()) == ["network.weight", "network.bias"]
    assert network.double()(torch.rand(1, 1, 2, 2, dtype=torch.float64)).dtype == torch.float64


def test_build_normalises_only_if_asked():
    shape = (1, 8, 8)
    assert not isinstance(networks.build(NetworkSpec("mlp", shape, 3)), Normalised)
    network = networks.build(NetworkSpec("mlp", shape, 3, mean=(0.5,), std=(0.25,)))
    images = torch.rand(2, *shape)
    torch.testing.assert_close(network(images), network.network((images - 0.5) / 0.25))
