"""Cutting is the same as switching off: on every architecture, and on small networks against loops."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from structured_ensembles.channels import kinds, surgery, topology
from structured_ensembles.types import Cut, Group, Side

from .cutting import check, draw_channels, size


def test_a_cut_network_computes_what_the_zeroed_one_does(architecture):
    network, example, groups = architecture.network, architecture.example, architecture.topology.groups
    shares = st.lists(st.floats(0, 1), min_size=len(groups), max_size=len(groups))

    @settings(max_examples=4)
    @given(shares=shares, seed=st.integers(0, 2**31))
    def run(shares, seed):
        check(network, example, groups, draw_channels(groups, shares, seed))

    run()


def test_one_channel_of_each_group_is_enough(architecture):
    groups = architecture.topology.groups
    channels = draw_channels(groups, [0] * len(groups), seed=3)
    assert all(len(kept) == 1 for kept in channels.values())
    check(architecture.network, architecture.example, groups, channels)


# --- small networks -------------------------------------------------------------------------------------------------

CHAIN = (
    Group("0", 6, (Cut("0", Side.OUT), Cut("1", Side.OUT), Cut("3", Side.IN)), private=True),
    Group("3", 4, (Cut("3", Side.OUT), Cut("4", Side.OUT), Cut("6", Side.IN, repeat=9)), private=True),
)


@pytest.fixture
def chain():
    """Convolution, BatchNorm, convolution, PReLU, flatten, Linear, on images of 3x3."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.PReLU(4)]
        network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(36, 5)).eval()
        network[1].running_mean.uniform_(-1, 1)
        network[4].weight.data.uniform_(0.1, 0.9)
    return network


def random_images(channels=2, side=3):
    return torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(4))


def test_zeroed_is_zero_columns_of_every_reader(chain):
    kept = {"0": torch.tensor([1, 4]), "3": torch.tensor([0, 3])}
    by_hand = copy.deepcopy(chain)
    with torch.no_grad():
        for channel in (0, 2, 3, 5):
            by_hand[3].weight[:, channel] = 0
        for channel in (1, 2):
            by_hand[6].weight[:, 9 * channel : 9 * (channel + 1)] = 0
        with surgery.zeroed(chain, CHAIN, kept):
            torch.testing.assert_close(chain(random_images()), by_hand(random_images()))


def test_cut_slices_every_tensor(chain):
    kept = {"0": torch.tensor([1, 4]), "3": torch.tensor([0, 3])}
    smaller = surgery.cut(chain, CHAIN, kept)
    columns = [*range(9), *range(27, 36)]
    expected = {
        "0.weight": chain[0].weight[[1, 4]],
        "0.bias": chain[0].bias[[1, 4]],
        "1.weight": chain[1].weight[[1, 4]],
        "1.bias": chain[1].bias[[1, 4]],
        "1.running_mean": chain[1].running_mean[[1, 4]],
        "1.running_var": chain[1].running_var[[1, 4]],
        "1.num_batches_tracked": chain[1].num_batches_tracked,
        "3.weight": chain[3].weight[[0, 3]][:, [1, 4]],
        "3.bias": chain[3].bias[[0, 3]],
        "4.weight": chain[4].weight[[0, 3]],
        "6.weight": chain[6].weight[:, columns],
        "6.bias": chain[6].bias,
    }
    state = smaller.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    assert (smaller[0].out_channels, smaller[3].in_channels, smaller[3].out_channels) == (2, 2, 2)
    assert (smaller[1].num_features, smaller[4].num_parameters, smaller[6].in_features) == (2, 2, 18)


def test_a_cut_leaves_the_network_bit_identical_and_keeps_requires_grad(chain):
    chain.train()
    chain[1].eval()
    chain[3].weight.requires_grad_(requires_grad=False)
    before = copy.deepcopy(chain.state_dict())
    smaller = surgery.cut(chain, CHAIN, {"0": torch.tensor([2]), "3": torch.tensor([1])})
    assert all(torch.equal(tensor, before[name]) for name, tensor in chain.state_dict().items())
    assert [parameter.requires_grad for parameter in smaller.parameters()] == [
        parameter.requires_grad for parameter in chain.parameters()
    ]
    assert [module.training for module in smaller.modules()] == [module.training for module in chain.modules()]
    assert size(smaller) < size(chain)


def test_groups_that_are_not_named_keep_everything_and_share_their_tensors(chain):
    smaller = surgery.cut(chain, CHAIN, {"0": torch.tensor([0, 5])})
    assert smaller[3].weight.shape == (4, 2, 1, 1)
    assert smaller[6].weight is chain[6].weight
    assert smaller[0].weight is not chain[0].weight


def test_zeroed_takes_its_hooks_away_even_after_an_error(chain):
    with pytest.raises(RuntimeError), surgery.zeroed(chain, CHAIN, {"0": torch.tensor([0])}):
        chain(random_images(channels=7))
    assert not any(module._forward_pre_hooks for module in chain.modules())


def test_zeroing_beats_infinity(chain):
    with torch.no_grad():
        chain[0].bias[2] = torch.inf
        with surgery.zeroed(chain, CHAIN, {"0": torch.tensor([0, 1, 3])}):
            assert chain(random_images()).isfinite().all()


@given(
    groups=st.integers(1, 4), per_group=st.integers(1, 3), in_per_group=st.integers(1, 3), seed=st.integers(0, 2**31)
)
@settings(max_examples=40)
def test_a_grouped_convolution_is_cut_by_whole_groups(groups, per_group, in_per_group, seed):
    generator = torch.Generator().manual_seed(seed)
    units = groups + 1
    convolution = nn.Conv2d(units * in_per_group, units * per_group, 3, groups=units)
    group = Group("0", units, (Cut("0", Side.OUT, repeat=per_group),), private=False)
    kept = torch.randperm(units, generator=generator)[:groups].sort().values
    smaller = surgery.cut(nn.Sequential(convolution), (group,), {"0": kept})
    images = torch.randn(2, units * in_per_group, 4, 4, generator=generator)
    outputs = convolution(images).unflatten(1, (units, per_group))
    inputs = images.unflatten(1, (units, in_per_group))[:, kept].flatten(1, 2)
    torch.testing.assert_close(smaller(inputs), outputs[:, kept].flatten(1, 2))
    assert smaller[0].groups == groups


@given(
    sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=4), seed=st.integers(0, 2**31)
)
@settings(max_examples=40)
def test_kept_positions_are_those_of_a_slow_loop(sizes, seed):
    """Several groups side by side in one dimension, each with its own number of positions per channel."""
    generator = torch.Generator().manual_seed(seed)
    groups, channels, expected, offset = [], {}, [], 0
    for index, (count, repeat) in enumerate(sizes):
        groups.append(Group(str(index), count, (Cut("0", Side.IN, offset, repeat),), private=False))
        kept = torch.randperm(count, generator=generator)[: 1 + seed % count].sort().values
        channels[str(index)] = kept
        expected += [channel in kept.tolist() for channel in range(count) for _ in range(repeat)]
        offset += count * repeat
    network = nn.Sequential(nn.Linear(offset, 1))
    found = surgery.kept_positions(network, groups, channels)
    assert {site: mask.tolist() for site, mask in found.items()} == {("0", Side.IN): expected}


def test_what_has_no_channels_is_refused():
    with pytest.raises(TypeError, match="LayerNorm has no channels to cut"):
        kinds.width(nn.LayerNorm(3), Side.OUT)


def test_the_groups_of_a_cut_network_lie_where_its_channels_are():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm, self.last = (
                nn.Linear(2, 4),
                nn.Linear(2, 6),
                nn.BatchNorm1d(10),
                nn.Linear(10, 3),
            )

        def forward(self, x):
            return self.last(self.norm(torch.cat([self.a(x), self.b(x)], dim=1)).relu())

    network = Joined()
    groups = topology.find(network, torch.rand(2, 2)).groups
    kept = {"a": torch.tensor([1, 3]), "b": torch.tensor([0, 1, 5])}
    narrow = surgery.narrowed(network, groups, kept)
    again = topology.find(surgery.cut(network, groups, kept), torch.rand(2, 2)).groups
    assert narrow == again


def test_a_network_that_keeps_what_it_computed_is_cut(chain):
    chain.last = chain(random_images())
    smaller = surgery.cut(chain, CHAIN, {"0": torch.tensor([1, 4])})
    assert smaller.last is not chain.last
    assert torch.equal(smaller.last, chain.last)
    assert chain.last.grad_fn is not None
