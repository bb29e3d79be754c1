"""Networks without their output layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from structured_ensembles import networks
from structured_ensembles.continual.learner.backbones import backbone, features_of
from structured_ensembles.errors import NetworkError
from structured_ensembles.networks import NetworkSpec

from ..learners import published_half_vgg11

SHAPE = (3, 32, 32)
WIDTHS = {"half_vgg11": 256, "lenet5": 84, "mlp": 128, "resnet20": 64, "small_cnn": 96, "small_vgg": 128, "vgg11": 512}


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("name", WIDTHS)
def test_gives_the_features_that_the_output_layer_reads(name):
    network = backbone(NetworkSpec(name, SHAPE, 10)).eval()
    assert features_of(network, torch.rand(2, *SHAPE)) == (WIDTHS[name],)
    torch.manual_seed(0)
    whole = networks.build(NetworkSpec(name, SHAPE, 10)).eval()
    output = [module for module in whole.modules() if isinstance(module, nn.Linear)][-1]
    images = torch.rand(2, *SHAPE)
    torch.manual_seed(0)
    with torch.no_grad():
        assert torch.equal(output(backbone(NetworkSpec(name, SHAPE, 10)).eval()(images)), whole(images))


def test_a_network_that_normalises_its_pixels_goes_on_doing_so():
    spec = NetworkSpec("mlp", (1, 4, 4), 3, {"width": 8, "depth": 1}, mean=(0.5,), std=(0.25,))
    network = backbone(spec)
    images = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(network(images), network.network((images - 0.5) / 0.25))


def test_networks_of_other_libraries_lose_their_output_layer():
    pytest.importorskip("torchvision")
    network = backbone(NetworkSpec("torchvision:mobilenet_v2", SHAPE, 10))
    assert features_of(network, torch.rand(2, *SHAPE)) == (1280,)


def test_a_network_without_one_is_refused():
    pytest.importorskip("torchvision")
    with pytest.raises(NetworkError, match="squeezenet1_1 does not end in a linear layer"):
        backbone(NetworkSpec("torchvision:squeezenet1_1", (3, 64, 64), 10))


def test_published_maps_are_copies_of_the_last_ones():
    network = published_half_vgg11(SHAPE)
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_304_864
    assert features_of(network, torch.rand(2, *SHAPE)) == (256, 7, 7)
    maps = network(torch.rand(2, *SHAPE))
    torch.testing.assert_close(maps, maps[:, :, :1, :1].expand_as(maps))


def test_looking_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    features_of(network, torch.rand(3, 4))
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(5, 2), r"fails on inputs of shape \(2, 4\)"),
        (nn.Unflatten(1, (2, 2)), r"gives shape \(2, 2, 2\): it must give features \(B, d\) or maps"),
        (nn.LSTM(4, 2), "gives a tuple"),
    ],
)
def test_what_is_no_backbone_is_refused(network, message):
    with pytest.raises(NetworkError, match=message):
        features_of(network, torch.rand(2, 4))
