from __future__ import annotations

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from structured_ensembles.channels import topology
from structured_ensembles.channels.extraction import compose, extract
from structured_ensembles.networks.modules import draw, skeleton

INPUTS = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def make() -> nn.Sequential:
    body = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(16, 5))


BASE = make().eval()
FOUND = topology.find(BASE, INPUTS)
KEPT = {"0": torch.tensor([0, 2, 5]), "3": torch.tensor([1])}


def test_a_member_has_the_kept_channels_weights():
    member = extract(BASE, FOUND.groups, KEPT)
    torch.testing.assert_close(member[0].weight, BASE[0].weight[[0, 2, 5]], rtol=0, atol=0)
    torch.testing.assert_close(member[3].weight, BASE[3].weight[[1]][:, [0, 2, 5]], rtol=0, atol=0)
    torch.testing.assert_close(member[6].weight, BASE[6].weight[:, 4:8], rtol=0, atol=0)
    assert (member[0].out_channels, member[1].num_features, member[3].in_channels, member[6].in_features) == (
        3,
        3,
        3,
        4,
    )
    assert member(INPUTS).shape == (2, 5)


def test_members_share_no_memory_with_the_base_or_each_other():
    for channels in ({}, KEPT):
        base = make()
        before = copy.deepcopy(base.state_dict())
        one, two = (extract(base, FOUND.groups, channels) for _ in range(2))
        other = copy.deepcopy(two.state_dict())
        with torch.no_grad():
            for tensor in one.state_dict().values():
                tensor.add_(1)
        assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
        assert all(torch.equal(value, other[name]) for name, value in two.state_dict().items())
        pointers = [tensor.untyped_storage().data_ptr() for n in (base, one, two) for tensor in n.state_dict().values()]
        assert len(set(pointers)) == len(pointers)


def test_a_member_holds_no_more_memory_than_its_tensors_need():
    member = extract(BASE, FOUND.groups, KEPT)
    assert all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in member.state_dict().values())


def test_what_the_user_froze_stays_frozen_and_modes_are_kept():
    base = make().train()
    base[3].weight.requires_grad_(requires_grad=False)
    base[1].eval()
    member = extract(base, FOUND.groups, KEPT)
    frozen = [name for name, parameter in member.named_parameters() if not parameter.requires_grad]
    assert frozen == ["3.weight"]
    assert [module.training for module in member] == [module.training for module in base]


def test_drawing_follows_the_seed_and_leaves_the_global_generator():
    state = torch.get_rng_state()
    first = draw(make, 3).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    second, other = draw(make, 3).state_dict(), draw(make, 4).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_a_skeleton_has_shapes_and_no_memory_and_the_network_keeps_its_own():
    bones = skeleton(BASE)
    assert all(tensor.is_meta for tensor in bones.state_dict().values())
    assert not any(tensor.is_meta for tensor in BASE.state_dict().values())
    cut, real = extract(bones, FOUND.groups, KEPT).state_dict(), extract(BASE, FOUND.groups, KEPT).state_dict()
    assert {n: (t.shape, t.dtype) for n, t in cut.items()} == {n: (t.shape, t.dtype) for n, t in real.items()}


@given(st.sets(st.integers(0, 19), min_size=1), st.data())
def test_composing_names_the_first_networks_channels(outer, data):
    outer = sorted(outer)
    inner = sorted(data.draw(st.sets(st.integers(0, len(outer) - 1), min_size=1)))
    composed = compose({"a": torch.tensor(outer)}, {"a": torch.tensor(inner)})
    assert composed["a"].tolist() == [outer[i] for i in inner]


def test_cutting_twice_is_cutting_once_what_is_composed():
    outer = {"0": torch.tensor([1, 2, 4, 5]), "3": torch.tensor([0, 1, 3])}
    inner = {"0": torch.tensor([0, 3]), "3": torch.tensor([2])}
    narrow = extract(BASE, FOUND.groups, outer)
    twice = extract(narrow, topology.find(narrow, INPUTS).groups, inner).state_dict()
    once = extract(BASE, FOUND.groups, compose(outer, inner)).state_dict()
    assert all(torch.equal(value, once[name]) for name, value in twice.items())
