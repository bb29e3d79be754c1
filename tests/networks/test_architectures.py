"""Our own architectures: sizes, shapes, initialisation."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from structured_ensembles import networks
from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.networks.architectures.convolutional import small_cnn
from structured_ensembles.networks.architectures.half_vgg import half_vgg11
from structured_ensembles.networks.architectures.lenet import lenet5
from structured_ensembles.networks.architectures.perceptron import mlp
from structured_ensembles.networks.architectures.resnet import Shortcut, resnet20, resnet32
from structured_ensembles.networks.architectures.vgg import small_vgg, vgg11
from structured_ensembles.options.catalogue import ARCHITECTURES

OURS = [
    *("half_vgg11", "lenet5", "mlp", "resnet20", "resnet32", "resnet44", "resnet56", "small_cnn", "small_vgg"),
    *("vgg11", "vgg13", "vgg16"),
]
SHAPES = [(3, 32, 32), (1, 28, 28), (1, 8, 8), (2, 7, 9), (3, 64, 48)]
SMALL = (1, 8, 8)


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def convolution(channels_in, channels_out, side=3):
    """Weights of a convolution without bias and of its BatchNorm."""
    return channels_in * channels_out * side**2 + 2 * channels_out


def linear(channels_in, channels_out):
    return channels_in * channels_out + channels_out


def chain(widths):
    return sum(convolution(before, after) for before, after in pairwise(widths))


def test_every_architecture_of_ours_is_tested_here():
    assert set(OURS) <= set(ARCHITECTURES)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OURS)
def test_takes_a_single_image_of_every_supported_size_in_training_mode(name, shape):
    network = networks.build(NetworkSpec(name, shape, 7))
    assert network.training
    with torch.no_grad():
        logits = network(torch.rand(1, *shape))
    assert logits.shape == (1, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", OURS)
def test_every_parameter_is_trained(name):
    network = networks.build(NetworkSpec(name, SMALL, 7))
    network(torch.rand(4, *SMALL)).logsumexp(1).sum().backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("name", OURS)
def test_logits_of_one_image_do_not_depend_on_the_batch_and_do_on_the_image(name):
    network = networks.build(NetworkSpec(name, SMALL, 5)).double().eval()
    images = torch.rand(3, *SMALL, dtype=torch.float64)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", OURS)
def test_the_global_seed_decides_the_weights(name):
    first, second, other = (seeded(name, seed).state_dict() for seed in (0, 0, 1))
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def seeded(name, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return networks.build(NetworkSpec(name, (1, 8, 8), 3))


@pytest.mark.parametrize("name", OURS)
def test_no_module_is_used_twice(name):
    network = networks.build(NetworkSpec(name, SMALL, 3))
    calls = []
    for part in network.modules():
        if not list(part.children()):
            part.register_forward_hook(lambda module, *_: calls.append(module))
    network(torch.rand(1, *SMALL))
    assert len(calls) == len(set(calls)) == sum(not list(part.children()) for part in network.modules())


def test_published_half_vgg_size():
    network = half_vgg11((3, 32, 32), 10)
    widths = [3, 32, 64, 128, 128, 256, 256, 256, 256]
    convolutions = sum(before * after * 3 * 3 for before, after in pairwise(widths))
    assert convolutions == 2_304_864
    assert parameters(network) == convolutions + linear(256, 10)


def test_published_resnet_sizes():
    assert parameters(resnet20((3, 32, 32), 10, shortcut="pad")) == 269_722
    assert parameters(resnet20((3, 32, 32), 10)) == 272_474
    assert parameters(resnet20((3, 32, 32), 10, shortcut=Shortcut.PROJECT)) == 272_474


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_a_resnet_has_the_parameters_of_its_convolutions(depth):
    blocks = (depth - 2) // 6
    widths = [3] + [16] * (2 * blocks + 1) + [32] * (2 * blocks) + [64] * (2 * blocks)
    body = chain(widths) + linear(64, 10)
    spec = {"input_shape": (3, 32, 32), "classes": 10}
    assert parameters(networks.build(NetworkSpec(f"resnet{depth}", **spec, arguments={"shortcut": "pad"}))) == body
    projections = convolution(16, 32, side=1) + convolution(32, 64, side=1)
    assert parameters(networks.build(NetworkSpec(f"resnet{depth}", **spec))) == body + projections


def test_sizes_of_the_small_networks():
    assert parameters(small_vgg((3, 32, 32), 10)) == 279_466
    assert parameters(small_vgg((3, 32, 32), 10)) == chain([3, 32, 64, 64, 128, 128]) + linear(128, 10)
    assert parameters(small_cnn((3, 32, 32), 10)) == chain([3, 32, 64, 96]) + linear(96, 10)
    assert parameters(mlp((1, 8, 8), 10, width=50, depth=3)) == (linear(64, 50) + 2 * linear(50, 50) + linear(50, 10))


@pytest.mark.parametrize("side", [8, 28, 31, 32])
def test_lenet5_has_the_same_size_for_all_images_up_to_32(side):
    assert parameters(lenet5((1, side, side), 10)) == (
        (1 * 25 * 6 + 6) + (6 * 25 * 16 + 16) + linear(16 * 5 * 5, 120) + linear(120, 84) + linear(84, 10)
    )


def test_lenet5_is_widened():
    assert parameters(lenet5((3, 32, 32), 2, width_mult=1.5)) == (
        (3 * 25 * 9 + 9) + (9 * 25 * 24 + 24) + linear(24 * 5 * 5, 180) + linear(180, 126) + linear(126, 2)
    )
    with pytest.raises(SettingsError, match=r"width_mult must be a number from 0\.25 to 16, not 100"):
        lenet5((3, 32, 32), 2, width_mult=100)


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("vgg11", [3, 64, 128, 256, 256, 512, 512, 512, 512]),
        ("vgg13", [3, 64, 64, 128, 128, 256, 256, 512, 512, 512, 512]),
        ("vgg16", [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]),
    ],
)
def test_vgg_size_does_not_depend_on_the_image(name, widths):
    expected = chain(widths) + linear(512, 10)
    assert parameters(networks.build(NetworkSpec(name, (3, 32, 32), 10))) == expected
    assert parameters(networks.build(NetworkSpec(name, (3, 8, 8), 10))) == expected


@pytest.mark.parametrize(("name", "pools"), [("vgg11", 5), ("vgg16", 5), ("small_vgg", 2), ("small_cnn", 2)])
def test_images_of_32_pixels_are_pooled_as_published(name, pools):
    network = networks.build(NetworkSpec(name, (3, 32, 32), 10))
    assert sum(isinstance(module, nn.MaxPool2d) for module in network.modules()) == pools


def test_weights_are_drawn_as_he_et_al_have_it():
    network = vgg11((3, 32, 32), 10)
    layer = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (512 * 9)), rel=0.01)
    assert layer.weight.mean().item() == pytest.approx(0, abs=1e-4)
    assert all(not module.bias.any() for module in network.modules() if isinstance(module, nn.Linear))


def test_pad_shortcut_keeps_every_second_pixel_between_zero_channels():
    images = torch.rand(2, 16, 6, 6)
    padded = resnet20((3, 32, 32), 10, shortcut="pad").blocks[3].shortcut(images)
    assert padded.shape == (2, 32, 3, 3)
    for channel in range(32):
        expected = images[:, channel - 8, ::2, ::2] if 8 <= channel < 24 else torch.zeros(2, 3, 3)
        assert torch.equal(padded[:, channel], expected)


@pytest.mark.parametrize(("name", "side"), [("resnet20", 4), ("vgg11", 1), ("small_vgg", 1), ("small_cnn", 1)])
def test_images_that_are_too_small_are_refused(name, side):
    message = f"{name} takes images of at least {side + 1}x{side + 1} pixels, and these are 30x{side}"
    with pytest.raises(NetworkError, match=message):
        networks.build(NetworkSpec(name, (1, 30, side), 3))
    assert networks.build(NetworkSpec(name, (1, 30, side + 1), 3))(torch.rand(1, 1, 30, side + 1)).shape == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be a whole number from 1 to 4096, not 0"),
        ({"width": True}, "width must be a whole number from 1 to 4096, not True"),
        ({"width": 10**18}, "from 1 to 4096, not 10000"),
        ({"depth": 17}, "depth must be a whole number from 1 to 16, not 17"),
        ({"depth": "2"}, "depth must be a whole number from 1 to 16, not '2'"),
        ({"depth": None}, "not None"),
    ],
)
def test_mlp_refuses_what_it_cannot_be_built_from(arguments, message):
    with pytest.raises(SettingsError, match=message):
        networks.build(NetworkSpec("mlp", (1, 8, 8), 3, arguments))


def test_mlp_refuses_huge_first_layers():
    with pytest.raises(NetworkError, match="would have 50331648 x 128 weights"):
        mlp((3, 4096, 4096), 10)


@pytest.mark.parametrize("shortcut", ["padd", 3, None])
def test_unknown_shortcuts_are_refused(shortcut):
    with pytest.raises(SettingsError, match=f"unknown shortcut '{shortcut}'.*pad, project"):
        resnet32((3, 32, 32), 10, shortcut=shortcut)
