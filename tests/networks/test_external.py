from __future__ import annotations

import sys

import pytest
import torch

from structured_ensembles import networks
from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.networks import NetworkSpec

VALID = {"torchvision": "torchvision:resnet18", "timm": "timm:resnet26d"}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Nothing may be downloaded."""

    def refuse(*arguments, **options):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("torchvision:resnet18", (3, 32, 32)),
        ("torchvision:mobilenet_v3_small", (3, 32, 32)),
        ("torchvision:vit_b_16", (3, 32, 32)),
        ("torchvision:googlenet", (3, 32, 32)),
        ("torchvision:inception_v3", (3, 80, 80)),
        ("timm:resnet26d", (2, 32, 32)),
        ("timm:vit_tiny_patch16_224", (1, 32, 48)),
    ],
)
def test_networks_of_other_libraries_are_built_by_name(name, shape):
    pytest.importorskip(name.partition(":")[0])
    network = networks.build(NetworkSpec(name, shape, 5))
    assert network.training
    with torch.no_grad():
        assert network(torch.rand(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "argument"), [("torchvision:mobilenet_v3_small", "dropout"), ("timm:resnet26d", "drop_rate")]
)
def test_rates_are_passed_on(name, argument):
    pytest.importorskip(name.partition(":")[0])
    network = networks.build(NetworkSpec(name, (3, 32, 32), 5, {argument: 0.9})).eval()
    plain = networks.build(NetworkSpec(name, (3, 32, 32), 5, {argument: 0})).eval()
    assert 0.9 in rates(network)
    assert 0.9 not in rates(plain)


def rates(network):
    """Of dropout, as a module or as the attribute that timm's functional dropout reads."""
    attributes = [vars(module).get(name) for module in network.modules() for name in ("p", "drop_rate")]
    return [value for value in attributes if value is not None]


@pytest.mark.parametrize("source", ["torchvision", "timm"])
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("pretrained", True),
        ("weights", "DEFAULT"),
        ("checkpoint_path", "/etc/passwd"),
        ("pretrained_cfg", "hf_hub:someone/something"),
        ("cache_dir", "."),
        ("features_only", True),
        ("num_classes", 3),
    ],
)
def test_arguments_that_could_load_something_are_refused(source, argument, value):
    with pytest.raises(SettingsError, match=f"unknown argument of {source} architectures '{argument}'"):
        networks.build(NetworkSpec(VALID[source], (3, 32, 32), 5, {argument: value}))


def test_rates_have_limits():
    with pytest.raises(SettingsError, match="drop_rate must be a number from 0 to 1, not 2"):
        networks.build(NetworkSpec("timm:resnet26d", (3, 32, 32), 5, {"drop_rate": 2}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet8", "unknown architecture 'torchvision:resnet8': did you mean 'torchvision:resnet"),
        ("torchvision:fcn_resnet50", "unknown architecture"),
        ("torchvision:", "unknown architecture"),
        ("torchvision:list_models", "unknown architecture"),
        ("timm:resnet26dd", "did you mean 'timm:resnet26d'"),
        ("timm:resnet26d.bt_in1k", "Known: .*timm:resnet26d,"),
        ("timm:hf_hub:timm/resnet18", "unknown architecture"),
        ("timm:hf-hub:timm/resnet18", "unknown architecture"),
        ("timm:local-dir:/tmp", "unknown architecture"),
        ("timm:/tmp/model", "unknown architecture"),
    ],
)
def test_only_listed_names_are_built(name, message):
    pytest.importorskip(name.partition(":")[0])
    with pytest.raises(SettingsError, match=message):
        networks.build(NetworkSpec(name, (3, 32, 32), 5))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("torchvision:resnet18", (1, 28, 28), "takes images with 3 channels, and these have 1: convert them to RGB"),
        ("torchvision:vit_b_16", (3, 32, 48), "takes square images, and these are 32x48"),
        ("torchvision:vit_b_16", (3, 28, 28), "cannot be built for 3x28x28 images .*patch size"),
        ("torchvision:maxvit_t", (3, 32, 32), "cannot be built for 3x32x32 images .*not divisible"),
        ("timm:vit_tiny_patch16_224", (1, 28, 28), "multiples of 16 pixels, and these are 28x28"),
        ("timm:vit_tiny_patch16_224", (1, 8, 8), "multiples of 16 pixels, and these are 8x8"),
    ],
)
def test_images_that_a_network_cannot_take_are_refused(name, shape, message):
    pytest.importorskip(name.partition(":")[0])
    with pytest.raises(NetworkError, match=message) as caught:
        networks.build(NetworkSpec(name, shape, 5))
    assert "\n" not in str(caught.value)


def test_an_argument_that_one_architecture_lacks_is_refused():
    pytest.importorskip("torchvision")
    with pytest.raises(NetworkError, match=r"with the arguments \{'dropout': 0.5\} .*'dropout'"):
        networks.build(NetworkSpec("torchvision:resnet18", (3, 32, 32), 5, {"dropout": 0.5}))


@pytest.mark.parametrize(("source", "module"), [("torchvision", "torchvision.models"), ("timm", "timm")])
def test_a_missing_library_is_named_with_its_extra(source, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError, match=rf"need a working {source} .*pip install 'structured-ensembles\[vision\]'"):
        networks.build(NetworkSpec(VALID[source], (3, 32, 32), 5))
