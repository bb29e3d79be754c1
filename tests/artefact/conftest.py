"""Small ensembles, cut at random and never trained, and what becomes of their files."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from structured_ensembles import networks
from structured_ensembles.artefact import file as artefact
from structured_ensembles.artefact.file import Record
from structured_ensembles.channels import topology
from structured_ensembles.channels.extraction import extract
from structured_ensembles.errors import ArtefactError
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.networks.modules import draw
from structured_ensembles.options.choices import Combine
from structured_ensembles.types import Cut, Group, Side

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
DTYPES += [torch.int8, torch.uint8, torch.bool]
GROUPS = (
    Group("a", 11, (Cut("a", Side.OUT), Cut("b", Side.IN, 3, 4)), private=True),
    Group("b", 8, (Cut("b", Side.OUT),), private=True),
)
PLAIN = Record("single", 1, ("cat", "dog"), (1, 8, 8), Combine.PROBABILITIES, None)
SPECS = {
    "small_cnn": NetworkSpec("small_cnn", (1, 8, 8), 10),
    "lenet5": NetworkSpec("lenet5", (1, 16, 16), 3, mean=(0.25,), std=(0.5,)),
    "resnet20": NetworkSpec("resnet20", (3, 8, 8), 4, {"shortcut": "pad"}),
}


def random_tensor(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 9).to(dtype)


def random_channels(groups, seed):
    generator = torch.Generator().manual_seed(seed)
    channels = {}
    for group in groups:
        count = int(torch.randint(1, group.channels + 1, (), generator=generator))
        channels[group.name] = torch.randperm(group.channels, generator=generator)[:count].sort().values
    return channels


def same_tensors(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype, name
        assert torch.equal(tensor, right[name]), name


def same_records(left, right):
    for name in ("method", "members", "classes", "input_shape", "combine", "network", "summary"):
        assert getattr(left, name) == getattr(right, name), name
    bare = [replace(group, private=False, scaled={}) for group in left.groups]
    assert bare == list(right.groups)
    assert len(left.channels) == len(right.channels)
    for mine, other in zip(left.channels, right.channels, strict=True):
        same_tensors(mine, other)


@pytest.fixture(scope="module", params=SPECS)
def ensemble(request):
    """A record, the members' tensors and the members, cut at random out of a real network."""
    return make_ensemble(SPECS[request.param])


@pytest.fixture(scope="module")
def small():
    return make_ensemble(SPECS["small_cnn"])


def make_ensemble(spec, count=3):
    base = draw(lambda: networks.build(spec), 1)
    groups = topology.find(base, torch.zeros(2, *spec.input_shape)).groups
    channels = tuple(random_channels(groups, seed) for seed in range(count))
    members = [extract(base, groups, kept).eval() for kept in channels]
    for seed, member in enumerate(members):
        fill(member, seed)
    classes = tuple(f"class {number}" for number in range(spec.classes))
    record = Record("structured", count, classes, spec.input_shape, Combine.LOGITS, spec, groups, channels)
    return record, [member.state_dict() for member in members], members


def fill(member, seed):
    """Trained networks have other values than fresh ones, buffers included."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in member.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.1 * torch.rand(tensor.shape, generator=generator))
        else:
            tensor.fill_(seed + 5)


def bytes_of(tmp_path, members=None, record=PLAIN):
    path = tmp_path / "made"
    artefact.write(path, members or [{"w": torch.arange(6.0), "n": torch.tensor(3)}], record)
    content = path.read_bytes()
    path.unlink()
    return content


def refusal(tmp_path, content):
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(ArtefactError) as caught:
        artefact.read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)
