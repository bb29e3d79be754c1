"""What can be scaled and cut: the groups of every architecture, their ties and where they are scaled."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from structured_ensembles.channels import kinds, surgery, topology
from structured_ensembles.networks.architectures.lenet import lenet5
from structured_ensembles.networks.architectures.resnet import resnet20, resnet32
from structured_ensembles.options.choices import Placement, Scope
from structured_ensembles.types import Cut, Side

IMAGES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


pytestmark = pytest.mark.usefixtures("seeded")


def groups_of(found):
    return {group.name: group for group in found.groups}


PRIVATE_AND_TIED = {
    "mlp": (2, 0),
    "lenet5": (2 + 2, 0),
    "resnet20": (9, 3),  # the first convolution of each block; one residual stream for each stage
    "resnet32": (15, 3),
    "resnet20_pad": (9, 0),  # zeros around the channels shift them from stage to stage: the stream is left whole
    "resnet32_pad": (15, 0),
    "vgg11": (8 + 2, 0),
    "vgg11_bn": (8 + 2, 0),
    "vgg16": (13 + 2, 0),
    "vgg16_bn": (13 + 2, 0),
    "resnet18": (8, 4),
    "resnet50": (1 + 2 * 16, 4),  # the stem feeds the first block's convolution and its projection only
    "resnet26d": (3 + 2 * 8, 4),
    "mobilenet_v2": (1 + 2, 1 + 16 + 5),  # head and stages of one block; stem, expansions and stages of several blocks
    "mobilenet_v3_small": (2 + 9 + 1, 1 + 10 + 4),  # two head layers, gates, a stage of one block; as above
    "efficientnet_b0": (1 + 16 + 2, 1 + 15 + 5),
    "regnet_y_400mf": (1 + 16, 16 + 4),  # stem and gates; a grouped convolution in each block, stages
    "narrow_convnext": (3 + 3 + 9 + 3, 0),  # LayerNorm mixes all but the hidden layers of the blocks
    "narrow_densenet": (17, 1 + 17 + 3),  # bottlenecks; stem, growth and transitions, all of them concatenated
    "squeezenet1_1": (1 + 8, 2 * 8),  # stem and squeezes; the expansions are concatenated
    "narrow_vit": (12, 0),
    "vit_tiny_patch16_224": (12, 0),
}


def test_the_groups_of_every_architecture(architecture):
    private, tied = PRIVATE_AND_TIED[architecture.name]
    groups = architecture.topology.groups
    assert [sum(group.private for group in groups), len(groups)] == [private, private + tied]
    assert architecture.topology.classes == 10
    if architecture.name in DETAILS:
        DETAILS[architecture.name](architecture.network, architecture.topology, groups_of(architecture.topology))


def test_groups_come_in_the_order_of_the_run_and_never_hold_input_or_output(architecture):
    network, groups = architecture.network, architecture.topology.groups
    calls = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, module in network.named_modules()
    ]
    with torch.no_grad():
        network(architecture.example)
    for hook in hooks:
        hook.remove()
    layers = [name for name in calls if kinds.is_layer(network.get_submodule(name))]
    places = [layers.index(group.name) for group in groups]
    assert places == sorted(places)
    cut = {(site.module, site.side) for group in groups for site in group.cuts}
    assert (layers[0], Side.IN) not in cut
    assert (layers[-1], Side.OUT) not in cut


def test_no_position_is_cut_twice_and_all_lie_within_their_modules(architecture):
    network = architecture.network
    taken = {}
    for group in architecture.topology.groups:
        for cut in group.cuts:
            places = range(cut.offset, cut.offset + group.channels * cut.repeat)
            used = taken.setdefault((cut.module, cut.side), set())
            assert not used & set(places)
            used.update(places)
    for (name, side), used in taken.items():
        assert max(used) < kinds.width(network.get_submodule(name), side)


def test_a_channel_scaled_by_zero_is_really_off(architecture):
    """With the factor at zero after the normalisation, readers see zeros: these activations keep zero."""
    network, groups = architecture.network, architecture.topology.groups
    generator = torch.Generator().manual_seed(5)
    channels = {
        group.name: torch.randperm(group.channels, generator=generator)[: (group.channels + 1) // 2] for group in groups
    }
    with torch.no_grad():
        with scaled_to_zero(network, groups, channels, Placement.AFTER_NORM):
            actual = network(architecture.example)
        with surgery.zeroed(network, groups, channels):
            expected = network(architecture.example)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@contextmanager
def scaled_to_zero(network, groups, channels, placement):
    """Multiply the outputs of the scaled sites by 1 for kept channels and 0 for the others."""
    hooks = []
    for group in groups:
        flags = torch.zeros(group.channels)
        flags[channels[group.name]] = 1
        for site in group.scaled[placement]:
            hooks += [network.get_submodule(site.module).register_forward_hook(scale(site, flags))]
    yield
    for hook in hooks:
        hook.remove()


def scale(site, flags):
    def hook(module, _, output):
        dimension = kinds.channel_dimension(module)
        factors = torch.ones(output.shape[dimension])
        factors[site.offset : site.offset + len(flags) * site.repeat] = flags.repeat_interleave(site.repeat)
        return (output.movedim(dimension, -1) * factors).movedim(-1, dimension)

    return hook


def test_before_the_norm_means_on_the_layers_that_produce_the_channels(architecture):
    for group in architecture.topology.groups:
        sites = group.scaled[Placement.BEFORE_NORM]
        assert group.name in [site.module for site in sites]
        assert set(sites) <= set(group.cuts)
        assert all(site.side is Side.OUT for placement in Placement for site in group.scaled[placement])
        assert all(kinds.is_layer(architecture.network.get_submodule(site.module)) for site in sites)
        assert len(sites) == 1 or not group.private


def test_no_factor_is_applied_twice_on_one_path():
    """A norm that a later norm follows would cancel the factor: only the last one before the readers is scaled."""
    layers = [nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8)]
    network = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(24, 5))
    found = groups_of(topology.find(network, IMAGES))
    assert found["0"].scaled[Placement.BEFORE_NORM] == (Cut("0", Side.OUT), Cut("3", Side.OUT))
    assert found["0"].scaled[Placement.AFTER_NORM] == (Cut("4", Side.OUT),)
    assert found["6"].scaled[Placement.AFTER_NORM] == (Cut("6", Side.OUT),)


@pytest.mark.parametrize(("build", "blocks"), [(resnet20, 9), (resnet32, 15)], ids=["resnet20", "resnet32"])
@pytest.mark.parametrize("shortcut", ["pad", "project"])
def test_private_channels_of_a_residual_network_are_those_inside_its_blocks(build, blocks, shortcut):
    network = build((3, 8, 8), 10, shortcut=shortcut)
    found = topology.find(network, torch.randn(2, 3, 8, 8), scope=Scope.PRIVATE)
    assert [group.name for group in found.groups] == [f"blocks.{index}.conv1" for index in range(blocks)]
    assert list(found.widths.values()) == [width for width in (16, 32, 64) for _ in range(blocks // 3)]
    assert found.notices == ()


def test_a_residual_stream_ties_the_convolutions_of_a_stage_and_its_projection():
    found = groups_of(topology.find(resnet20((3, 8, 8), 10), torch.randn(2, 3, 8, 8)))
    stream = next(group for group in found.values() if Cut("blocks.3.conv2", Side.OUT) in group.cuts)
    producers = {f"blocks.{block}.conv2" for block in (3, 4, 5)} | {"blocks.3.shortcut.0"}
    norms = {f"blocks.{block}.norm2" for block in (3, 4, 5)} | {"blocks.3.shortcut.1"}
    readers = {f"blocks.{block}.conv1" for block in (4, 5, 6)} | {"blocks.6.shortcut.0"}
    assert {cut.module for cut in stream.cuts if cut.side is Side.OUT} == producers | norms
    assert {cut.module for cut in stream.cuts if cut.side is Side.IN} == readers
    assert {site.module for site in stream.scaled[Placement.BEFORE_NORM]} == producers
    assert {site.module for site in stream.scaled[Placement.AFTER_NORM]} == norms
    assert (stream.channels, stream.private) == (32, False)


def test_a_flatten_gives_each_channel_all_of_its_pixels():
    found = groups_of(topology.find(lenet5((1, 28, 28), 10), torch.randn(2, 1, 28, 28)))
    assert found["3"].cuts == (Cut("3", Side.OUT), Cut("7", Side.IN, repeat=5 * 5))


def check_narrow_vit(_, found, groups):
    assert list(found.widths.values()) == [192] * 12
    assert all(f"encoder_layer_{index}.mlp.0" in name for index, name in enumerate(groups))
    assert any("'encoder.pos_embedding'" in notice for notice in found.notices)
    assert any("(LayerNorm) mixes them" in notice for notice in found.notices)


def check_vit_tiny_patch16_224(_, found, groups):
    assert list(groups) == [f"blocks.{index}.mlp.fc1" for index in range(12)]
    assert list(found.widths.values()) == [768] * 12
    assert sum("attn.qkv' are left whole" in notice for notice in found.notices) == 12


def check_narrow_convnext(_, found, groups):
    assert list(found.widths.values()) == [4 * width for width in (12,) * 3 + (24,) * 3 + (48,) * 9 + (96,) * 3]
    assert any("'features.0.1' (LayerNorm2d) mixes them" in notice for notice in found.notices)


def check_squeezenet1_1(_, found, groups):
    assert "classifier.1" not in groups
    fire = "features.3"
    assert groups[f"{fire}.expand1x1"].cuts == (Cut(f"{fire}.expand1x1", Side.OUT), Cut("features.4.squeeze", Side.IN))
    assert Cut("features.4.squeeze", Side.IN, offset=64) in groups[f"{fire}.expand3x3"].cuts
    assert found.notices == ()


def check_mobilenet_v2(_, found, groups):
    cuts = groups["features.2.conv.0.0"].cuts
    ends = [("0.0", Side.OUT), ("0.1", Side.OUT), ("1.0", Side.OUT), ("1.1", Side.OUT), ("2", Side.IN)]
    assert set(cuts) == {Cut(f"features.2.conv.{name}", side) for name, side in ends}
    assert groups["features.2.conv.0.0"].scaled[Placement.AFTER_NORM] == (Cut("features.2.conv.1.1", Side.OUT),)
    assert not groups["features.2.conv.0.0"].private


def check_regnet_y_400mf(network, _, groups):
    grouped = {name for name, module in network.named_modules() if kinds.is_grouped(module)}
    tied = {cut.module: (group, cut) for group in groups.values() for cut in group.cuts if cut.module in grouped}
    assert len(tied) == 16
    for name, (group, cut) in tied.items():
        convolution = network.get_submodule(name)
        assert group.channels == convolution.groups
        assert cut == Cut(name, Side.OUT, repeat=convolution.out_channels // convolution.groups)
        assert {other.repeat for other in group.cuts} == {8}, "400MF has groups of eight channels"


def check_narrow_densenet(_, found, groups):
    readers = [cut for cut in groups["features.denseblock1.denselayer2.conv2"].cuts if cut.side is Side.IN]
    offset = 16 + 8  # the stem and the first layer's growth lie before
    later = [f"features.denseblock1.denselayer{index}.conv1" for index in range(3, 7)]
    assert readers == [Cut(name, Side.IN, offset) for name in [*later, "features.transition1.conv"]]
    stem = groups["features.conv0"]
    sites = {site.module for site in stem.scaled[Placement.AFTER_NORM]}
    assert "features.norm0" not in sites, "the norms of the dense layers would undo its factor"
    assert len(sites) == 6 + 1
    assert found.notices == ()


DETAILS = {
    "narrow_vit": check_narrow_vit,
    "vit_tiny_patch16_224": check_vit_tiny_patch16_224,
    "narrow_convnext": check_narrow_convnext,
    "squeezenet1_1": check_squeezenet1_1,
    "mobilenet_v2": check_mobilenet_v2,
    "regnet_y_400mf": check_regnet_y_400mf,
    "narrow_densenet": check_narrow_densenet,
}


class Remembering(nn.Module):
    """Keeps the activations of its last pass."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(8, 6), nn.Linear(6, 3)
        self.last, self.all = None, []

    def forward(self, features):
        self.last = self.hidden(features).relu()
        self.all = [self.last]
        return self.head(self.last)


def test_a_network_may_keep_what_it_computes():
    network = Remembering()
    assert topology.find(network, torch.randn(2, 8)).widths == {"hidden": 6}
    assert network.last is None
