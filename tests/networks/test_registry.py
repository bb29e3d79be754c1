from __future__ import annotations

import pytest
import torch
from torch import nn

from structured_ensembles import networks
from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.options.catalogue import ARCHITECTURES
from structured_ensembles.options.choices import Family


@pytest.fixture(autouse=True)
def _own_registry(forget):
    forget(ARCHITECTURES)


def linear(input_shape, classes, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), classes, bias=bias))


def test_a_user_adds_an_architecture():
    assert networks.register("linear")(linear) is linear
    assert "linear" in ARCHITECTURES
    network = networks.build(NetworkSpec("linear", (1, 4, 4), 3, {"bias": False}))
    assert network[1].weight.shape == (3, 16)
    assert network[1].bias is None


@pytest.mark.parametrize("name", ["mlp", "vgg16"])
def test_a_taken_name_is_refused(name):
    with pytest.raises(SettingsError, match=f"'{name}' is registered already: choose another name"):
        networks.register(name)(linear)


@pytest.mark.parametrize("name", ["", " ", "timm:mine", "a:b"])
def test_a_name_that_cannot_be_one_is_refused(name):
    with pytest.raises(SettingsError, match="use a name that is not empty, without a colon"):
        networks.register(name)(linear)


def test_a_factory_that_returns_no_network_is_refused():
    @networks.register("nothing")
    def nothing(input_shape, classes):
        return None

    with pytest.raises(NetworkError, match="factory of 'nothing' returned a NoneType"):
        networks.build(NetworkSpec("nothing", (1, 4, 4), 3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt20", "did you mean 'resnet20'"),
        ("os:system", "unknown architecture 'os:system'.*timm:NAME, torchvision:NAME"),
        ("structured_ensembles.networks.architectures.perceptron.mlp", "unknown architecture"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(SettingsError, match=message):
        networks.build(NetworkSpec(name, (3, 32, 32), 10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widht": 3}, "'mlp'.*'widht'.*Its arguments: width, depth."),
        ({"classes": 3}, "'mlp'.*'classes'.*Its arguments: width, depth."),
    ],
)
def test_arguments_that_do_not_exist_are_refused(arguments, message):
    with pytest.raises(SettingsError, match=message):
        networks.build(NetworkSpec("mlp", (1, 8, 8), 3, arguments))


def test_errors_of_a_users_factory_are_not_hidden():
    def broken(input_shape, classes):
        raise TypeError("the user's own")

    networks.register("broken")(broken)
    with pytest.raises(TypeError, match="the user's own"):
        networks.build(NetworkSpec("broken", (1, 8, 8), 3))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", Family.RESNET),
        ("torchvision:resnext50_32x4d", Family.RESNET),
        ("torchvision:wide_resnet50_2", Family.RESNET),
        ("timm:resnet26d", Family.RESNET),
        ("small_vgg", Family.VGG),
        ("torchvision:vgg16_bn", Family.VGG),
        ("small_cnn", Family.OTHER),
        ("timm:vit_tiny_patch16_224", Family.OTHER),
    ],
)
def test_every_name_belongs_to_a_family(name, expected):
    assert Family.of(name) is expected
