"""Rebuilding the members that a file holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from structured_ensembles import networks
from structured_ensembles.artefact import file as artefact
from structured_ensembles.artefact.file import Record
from structured_ensembles.channels.extraction import extract
from structured_ensembles.errors import ArtefactError
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.networks.modules import draw
from structured_ensembles.options.choices import Combine
from structured_ensembles.types import Cut, Group, Side

from .conftest import PLAIN, SPECS, make_ensemble, random_tensor, same_tensors


def test_members_share_nothing_and_the_generator_stays(small):
    record, tensors, _ = small
    before = torch.get_rng_state()
    restored = artefact.restore(record, tensors)
    assert torch.equal(before, torch.get_rng_state())
    memory = [tensor.data_ptr() for member in restored for tensor in member.state_dict().values() if tensor.numel()]
    memory += [tensor.data_ptr() for state in tensors for tensor in state.values()]
    assert len(set(memory)) == len(memory)


def test_members_that_were_not_cut_come_back(small, tmp_path):
    spec = SPECS["small_cnn"]
    members = [draw(lambda: networks.build(spec), seed).eval() for seed in range(2)]
    record = Record("deep", 2, tuple("0123456789"), spec.input_shape, Combine.LOGITS, spec)
    artefact.write(tmp_path / "a", [member.state_dict() for member in members], record)
    for member, restored in zip(members, artefact.restore(*artefact.read(tmp_path / "a")), strict=True):
        same_tensors(member.state_dict(), restored.state_dict())


def test_members_that_name_only_some_groups(small, tmp_path):
    record = small[0]
    first = record.groups[0].name
    base = draw(lambda: networks.build(record.network), 1)
    channels = ({first: torch.tensor([0, 3])}, {}, record.channels[2])
    states = [extract(base, record.groups, kept).state_dict() for kept in channels]
    artefact.write(tmp_path / "a", states, replace(record, channels=channels))
    restored = artefact.restore(*artefact.read(tmp_path / "a"))
    for state, member in zip(states, restored, strict=True):
        same_tensors(state, member.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_members_in_another_precision(dtype, tmp_path):
    record, _, members = make_ensemble(SPECS["lenet5"])
    members = [member.to(dtype) for member in members]
    artefact.write(tmp_path / "a", [member.state_dict() for member in members], record)
    x = random_tensor((2, *record.input_shape), dtype)
    for member, restored in zip(members, artefact.restore(*artefact.read(tmp_path / "a")), strict=True):
        same_tensors(member.state_dict(), restored.state_dict())
        assert torch.equal(member(x), restored(x))


def test_members_in_mixed_precision(small):
    record, tensors, _ = small
    mixed = [{name: t.half() if t.dim() == 4 else t for name, t in state.items()} for state in tensors]
    for state, restored in zip(mixed, artefact.restore(record, mixed), strict=True):
        same_tensors(state, restored.state_dict())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight


def test_the_architecture_of_the_caller(tmp_path):
    network = Tied()
    artefact.write(tmp_path / "a", [network.state_dict()], PLAIN)
    record, tensors = artefact.read(tmp_path / "a")
    (restored,) = artefact.restore(record, tensors, Tied)
    same_tensors(network.state_dict(), restored.state_dict())
    assert restored.first.weight is restored.second.weight
    with pytest.raises(ArtefactError, match=r"load\(path, architecture=MyNet\)"):
        artefact.restore(record, tensors)
    with pytest.raises(ArtefactError, match=r"returned a int: it must return an nn.Module"):
        artefact.restore(record, tensors, lambda: 3)
    with pytest.raises(ArtefactError, match=r"1 members were given, and the record has 2"):
        artefact.restore(replace(record, members=2), tensors, Tied)


def test_an_architecture_that_is_not_in_the_registry(small):
    record, tensors, _ = small
    foreign = replace(record, network=replace(record.network, name="small_cn"))
    with pytest.raises(
        ArtefactError, match=r"'small_cn' cannot be built .*'small_cnn'.*load\(path, architecture=MyNet\)"
    ):
        artefact.restore(foreign, tensors)
    rebuilt = artefact.restore(foreign, tensors, lambda: networks.build(record.network))
    same_tensors(rebuilt[0].state_dict(), tensors[0])


def test_another_architecture_is_described_all_at_once():
    state = {"0.weight": torch.ones(4, 3), "0.bias": torch.ones(4, dtype=torch.int64), "surplus": torch.ones(())}
    with pytest.raises(ArtefactError) as caught:
        artefact.restore(PLAIN, [state], lambda: nn.Sequential(nn.Linear(5, 4), nn.PReLU()))
    text = str(caught.value)
    assert "cut from another architecture: pass that one" in text
    assert "member 0, '0.weight': expected float32 (4, 5), found float32 (4, 3)" in text
    assert "member 0, '0.bias': expected float32 (4,), found int64 (4,)" in text
    assert "member 0, '1.weight': expected float32 (1,), found nothing" in text
    assert "member 0, 'surplus': expected nothing, found float32 ()" in text


def test_many_differences_are_counted(small):
    record, tensors, _ = small
    with pytest.raises(ArtefactError, match=r"(\n  member 0.*){5}\n  \.\.\. and \d+ more"):
        artefact.restore(replace(record, groups=(), channels=()), tensors)


def network_to_cut():
    first, second = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1, groups=4)
    return nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.Conv2d(8, 2, 1))


@pytest.mark.parametrize(
    ("cut", "match"),
    [
        (Cut("9", Side.OUT), r"'9': expected 4 channels to cut, found no such layer"),
        (Cut("__class__", Side.OUT), r"found no such layer"),
        (Cut("2", Side.OUT), r"'2': expected 4 channels to cut, found ReLU"),
        (Cut("0", Side.OUT, offset=5), r"'0': expected 4 channels to cut, found 8 and an offset of 5"),
        (Cut("0", Side.IN, repeat=2), r"expected 8 channels to cut, found 4"),
        (Cut("0", Side.IN, repeat=2**31 - 1), r"found 4"),
        (Cut("1", Side.IN, repeat=2), r"found BatchNorm2d, whose inputs are cut with its outputs"),
        (Cut("3", Side.IN, repeat=2), r"found Conv2d, whose inputs are cut with its outputs"),
        (Cut("3", Side.OUT), r"can only be cut by 2"),
    ],
)
def test_cuts_that_the_architecture_does_not_have(cut, match):
    group = Group("g", 4, (cut,), private=False)
    record = replace(PLAIN, groups=(group,), channels=({"g": torch.tensor([1])},))
    with pytest.raises(ArtefactError, match=match):
        artefact.restore(record, [network_to_cut().state_dict()], network_to_cut)


def test_cuts_of_whole_groups_are_made():
    cuts = (Cut("0", Side.OUT, repeat=2), Cut("1", Side.OUT, repeat=2), Cut("3", Side.OUT, repeat=2))
    group = Group("g", 4, (*cuts, Cut("4", Side.IN, repeat=2)), private=False)
    record = replace(PLAIN, groups=(group,), channels=({"g": torch.tensor([1, 3])},))
    member = extract(network_to_cut(), (group,), record.channels[0])
    (restored,) = artefact.restore(record, [member.state_dict()], network_to_cut)
    same_tensors(member.state_dict(), restored.state_dict())
    assert restored(torch.ones(1, 4, 2, 2)).shape == (1, 2, 2, 2)


def test_a_small_file_cannot_ask_for_a_huge_network():
    giant = NetworkSpec("lenet5", (1, 4096, 4096), 2)  # its first linear layer alone would take 8 GB
    record = replace(PLAIN, network=giant, input_shape=(1, 4096, 4096))
    with pytest.raises(ArtefactError, match=r"more than 67108864 parameters, out of proportion to the file"):
        artefact.restore(record, [{"w": torch.ones(1)}])
    nn.Linear(10000, 10000)  # no limit stays behind
