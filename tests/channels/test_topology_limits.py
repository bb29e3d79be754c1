"""What cannot be cut: channels that are mixed; and nothing of the user's is touched."""

from __future__ import annotations

import copy
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from structured_ensembles.channels import topology
from structured_ensembles.errors import NetworkError
from structured_ensembles.networks.architectures.resnet import resnet20

from .hand_made import FEATURES, IMAGES, Network, groups_of

pytestmark = pytest.mark.usefixtures("seeded")


# --- networks that mix channels -------------------------------------------------------------------------------------


class Standardised(nn.Conv2d):
    """A convolution that looks ordinary, and whose weights depend on all of its inputs."""

    def forward(self, images):
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return functional.conv2d(images, weight, self.bias)


def mixing(between, reader=None):
    """Two convolutions with something between them, and a Linear layer."""

    def forward(layers, images):
        hidden = layers[1](between(layers[0](images).relu()))
        return layers[2](hidden.relu().mean(dim=(2, 3)))

    return Network(forward, nn.Conv2d(3, 8, 1), reader or nn.Conv2d(8, 6, 1), nn.Linear(6, 4))


def shuffled(hidden):
    return hidden.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def permuted():
    def forward(layers, images):
        flat = layers[0](images).relu().permute(0, 2, 3, 1).flatten(1)
        return layers[2](layers[1](flat).relu())

    return Network(forward, nn.Conv2d(3, 8, 1), nn.Linear(8 * 16, 6), nn.Linear(6, 4))


NOT_THE_SAME = r"cutting them is not the same as zeroing them \(off by"
FAILS = "the network fails without some of them"
IRREGULAR = "follow no regular layout"

MIXING = {
    "channel shuffle": (lambda: mixing(shuffled), FAILS),
    "halves swapped": (lambda: mixing(lambda hidden: torch.cat(hidden.chunk(2, dim=1)[::-1], dim=1)), IRREGULAR),
    "a view in halves": (lambda: mixing(lambda hidden: hidden.unflatten(1, (2, 4)).flatten(1, 2)), FAILS),
    "channels reversed": (lambda: mixing(lambda hidden: hidden.flip(1)), NOT_THE_SAME),
    "softmax over channels": (lambda: mixing(lambda hidden: hidden.softmax(dim=1)), NOT_THE_SAME),
    "unit length": (lambda: mixing(lambda hidden: functional.normalize(hidden, dim=1)), NOT_THE_SAME),
    "local response": (lambda: mixing(nn.LocalResponseNorm(3)), NOT_THE_SAME),
    "mean taken away": (lambda: mixing(lambda hidden: hidden - hidden.mean(dim=1, keepdim=True)), NOT_THE_SAME),
    "standardised weights": (lambda: mixing(nn.Identity(), Standardised(8, 6, 1)), NOT_THE_SAME),
    "permute before flatten": (permuted, NOT_THE_SAME),
    "gated halves": (lambda: mixing(lambda hidden: functional.glu(hidden, dim=1), nn.Conv2d(4, 6, 1)), FAILS),
    "channels to pixels": (lambda: mixing(nn.PixelShuffle(2), nn.Conv2d(2, 6, 1)), FAILS),
    "half of the channels": (lambda: mixing(lambda hidden: hidden[:, :4], nn.Conv2d(4, 6, 1)), IRREGULAR),
    "a constant of the width": (lambda: mixing(lambda hidden: hidden * torch.ones(8, 1, 1).double()), FAILS),
}


@pytest.mark.parametrize("name", MIXING)
def test_channels_that_are_mixed_are_left_whole_with_a_notice(name):
    build, reason = MIXING[name]
    found = topology.find(build(), IMAGES)
    assert list(groups_of(found)) == ["layers.1"], "only the channels after the mixing can be cut"
    with pytest.raises(ValueError, match=rf"output channels of 'layers.0' are left whole: .*{reason}"):
        raise ValueError(*found.notices)


@pytest.mark.parametrize(
    ("module", "kind"), [(nn.GroupNorm(2, 8), "GroupNorm"), (nn.ConvTranspose2d(8, 8, 1), "ConvTranspose2d")]
)
def test_modules_that_mix_are_named(module, kind):
    network = nn.Sequential(nn.Conv2d(3, 8, 1), module, nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(6 * 16, 4))
    found = topology.find(network, IMAGES)
    assert list(groups_of(found)) == ["2"]
    assert found.notices[0] == f"The output channels of '0' are left whole: '1' ({kind}) mixes them and cannot be cut."


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm2d(8),
        nn.BatchNorm2d(8, affine=False),
        nn.BatchNorm2d(8, track_running_stats=False),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.InstanceNorm2d(8),
        nn.PReLU(8),
        nn.PReLU(),
        nn.Dropout(),
    ],
    ids=str,
)
def test_modules_that_keep_channels_apart_are_cut(module):
    network = nn.Sequential(nn.Conv2d(3, 8, 1), module, nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(6 * 16, 4))
    assert list(groups_of(topology.find(network, IMAGES))) == ["0", "2"]


@pytest.mark.parametrize("before", range(2, 10))
@pytest.mark.parametrize("channels", [3, 5])
def test_a_mirrored_order_is_found_whichever_channels_are_drawn(before, channels):
    """A random set of few channels may be its own mirror image, depending on what was drawn before it."""

    def forward(layers, features):
        hidden = layers[1](layers[0](features).relu()).relu().flip(1)
        return layers[3](layers[2](hidden).relu())

    sizes = [8, before, channels, 5, 3]
    network = Network(forward, *(nn.Linear(*pair) for pair in pairwise(sizes)))
    assert list(groups_of(topology.find(network, FEATURES))) == ["layers.0", "layers.2"]


def test_a_bad_group_among_many_is_found():
    """Only the seventh of ten hidden layers is mixed."""
    layers = [nn.Sequential(nn.Linear(8, 8), nn.Softmax(dim=1) if index == 6 else nn.ReLU()) for index in range(10)]
    found = topology.find(nn.Sequential(*layers, nn.Linear(8, 3)), FEATURES)
    assert list(groups_of(found)) == [f"{index}.0" for index in range(10) if index != 6]
    assert len(found.notices) == 1


def test_a_faint_branch_is_verified_too():
    """Channels that hardly reach the output are compared with what they do to it, not with the output."""

    def forward(layers, features):
        return layers[1](layers[0](features).softmax(dim=1)) * 1e-9 + layers[2](features)

    network = Network(forward, nn.Linear(8, 8), nn.Linear(8, 3), nn.Linear(8, 3))
    with pytest.raises(NetworkError, match=r"'layers.0' are left whole: cutting them is not the same"):
        topology.find(network, FEATURES)


def test_a_layer_that_never_runs_is_not_offered():
    network = Network(lambda layers, x: layers[1](layers[0](x).relu()), *(nn.Linear(8, 8) for _ in range(3)))
    assert list(groups_of(topology.find(network, FEATURES))) == ["layers.0"]


def test_a_network_that_starts_at_zero_is_probed_with_other_weights():
    network = nn.Sequential(nn.Linear(8, 8), nn.Softmax(dim=1), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    assert list(groups_of(topology.find(network, FEATURES))) == ["2"]


def test_the_hidden_layer_of_a_transformer_of_torch_is_found():
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    network = Network(lambda layers, x: layers[1](layers[0](x).mean(dim=1)), layer, nn.Linear(8, 3))
    found = topology.find(network, torch.randn(2, 5, 8))
    assert found.widths == {"layers.0.linear1": 16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.uint8])
def test_a_network_may_insist_on_its_own_precision(dtype):
    network = Network(lambda layers, x: layers[1](layers[0](x.float()).relu()), nn.Linear(8, 6), nn.Linear(6, 3))
    assert topology.find(network, FEATURES.abs().to(dtype)).widths == {"layers.0": 6}
    mixed = Network(lambda layers, x: layers[1](layers[0](x.float()).softmax(1)), nn.Linear(8, 6), nn.Linear(6, 3))
    with pytest.raises(NetworkError, match="not the same as zeroing"):
        topology.find(mixed, FEATURES.abs().to(dtype))


# --- nothing of the user's is touched -------------------------------------------------------------------------------


def state(network):
    """Everything that could be touched, of a network and of the process: numbers, and the rest."""
    gradients = [torch.zeros(0) if p.grad is None else p.grad.clone() for p in network.parameters()]
    numbers = [*copy.deepcopy(network.state_dict()).values(), *gradients, torch.get_rng_state()]
    facts = [
        [(id(p), p.requires_grad, id(p.grad)) for p in network.parameters()],
        [(id(b), b.requires_grad) for b in network.buffers()],
        [(name, id(module), module.training) for name, module in network.named_modules()],
        [(k, id(hook)) for m in network.modules() for kind in HOOKS for k, hook in getattr(m, kind).items()],
        [torch.get_default_dtype(), torch.is_grad_enabled(), sys.getprofile()],
    ]
    return numbers, facts


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def draws_numbers(failing):
    """A network with every kind of state, whose pass draws from the global generator without depending on it."""

    def forward(layers, features):
        hidden = layers[1](layers[0](features) + 0 * torch.rand(1)).relu()
        if failing:
            raise ValueError("on purpose")
        return layers[3](layers[2](hidden))

    network = Network(forward, nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3))
    network.layers[0].register_forward_hook(lambda *_: None)
    network.layers[3].register_forward_pre_hook(lambda *_: None)
    network.layers[3].weight.requires_grad_(requires_grad=False)
    network.layers[1].eval()
    network.layers[0].weight.grad = torch.ones_like(network.layers[0].weight)
    return network


@pytest.mark.parametrize("failing", [False, True])
def test_the_network_and_the_global_state_are_left_bit_identical(failing):
    network = draws_numbers(failing)
    before = state(network)
    if failing:
        with pytest.raises(NetworkError, match="on purpose"):
            topology.find(network, FEATURES)
    else:
        assert topology.find(network, FEATURES).widths == {"layers.0": 6}
    numbers, facts = state(network)
    assert facts == before[1]
    assert all(torch.equal(now, then) for now, then in zip(numbers, before[0], strict=True))


def test_the_answer_depends_on_the_network_alone():
    network = resnet20((3, 8, 8), 10)
    torch.manual_seed(1)
    first = topology.find(network, torch.randn(2, 3, 8, 8))
    torch.manual_seed(2)
    assert topology.find(network.train(), torch.randn(5, 3, 8, 8)) == first


class Helped(nn.Module):
    """Has an output that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last, self.helper = nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, inputs):
        hidden = self.a(inputs).relu()
        logits = self.last(self.b(hidden).relu())
        return logits + 0.3 * self.helper(hidden) if self.training else logits


def test_channels_that_only_training_reads_are_left_whole():
    network = Helped()
    found = topology.find(network, FEATURES)
    assert [group.name for group in found.groups] == ["b"]
    assert any("'a'" in notice and "fails without some of them" in notice for notice in found.notices)
    assert network.training
