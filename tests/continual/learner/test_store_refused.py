"""Files that are no stream of tasks, or are not what they were when they were written."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors
from torch import nn

from structured_ensembles.continual.learner import store
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.errors import ArtefactError, NetworkError
from structured_ensembles.networks import NetworkSpec

from ..learners import SHAPE
from ..streams import SETTINGS, Small, looped, made


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("streams") / "a"
    looped(made(), range(2)).save(path)
    return path


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_is_noticed(saved, data):
    content = bytearray(saved.read_bytes())
    at = data.draw(st.one_of(st.integers(0, 600), st.integers(0, len(content) - 1)))
    content[at] ^= data.draw(st.integers(1, 255))
    path = saved.with_name("changed")
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="changed"):
        ContinualLearner.load(path, Small)


@settings(max_examples=30)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_short_is_noticed(saved, share):
    content = saved.read_bytes()
    path = saved.with_name("short")
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtefactError, match="short"):
        ContinualLearner.load(path, Small)


def test_files_that_are_something_else(tmp_path):
    (tmp_path / "pickle").write_bytes(pickle.dumps(exit))
    safetensors.save_file({"a": torch.zeros(3)}, tmp_path / "other", {"format": "pt"})
    (tmp_path / "empty").touch()
    for name in ("pickle", "other", "empty"):
        with pytest.raises(ArtefactError, match=f"{name}: is not a stream of tasks, or damaged"):
            ContinualLearner.load(tmp_path / name, Small)
    with pytest.raises(ArtefactError, match="there is no such file"):
        ContinualLearner.load(tmp_path / "none", Small)
    with pytest.raises(ArtefactError, match="is not a regular file"):
        ContinualLearner.load(tmp_path, Small)


def forged(saved, change, tensors=None):
    """The file with another record, and a digest that matches it."""
    size = int.from_bytes(saved.read_bytes()[:8], "little")
    header = json.loads(saved.read_bytes()[8 : 8 + size])
    value = json.loads(header["__metadata__"]["structured_ensembles_stream"])
    change(value)
    held = {**safetensors.load_file(saved), **(tensors or {})}
    value["sha256"] = store._digest(value["record"], held)
    path = saved.with_name("forged")
    text = json.dumps(value, separators=(",", ":"))
    path.write_bytes(safetensors.save(held, {"structured_ensembles_stream": text}))
    return path


def _put(*path, to):
    def change(value):
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_put("version", to=2), r"newer version than this structured-ensembles reads \(1\): update it"),
        (_put("record", "settings", "keep", to=7), "its settings are not those of a stream .keep 7 is outside"),
        (_put("record", "settings", "keep", to=[]), "its settings are not those of a stream"),
        (_put("record", "settings", "colour", to="red"), "unknown settings colour"),
        (_put("record", "settings", "training", to=None), "its settings are not those of a stream"),
        (_put("record", "seed", to="x"), "its settings are not those of a stream"),
        (_put("record", "tasks", to=7), "the stream is not one of this library"),
        (_put("record", "tasks", 0, to={}), "a task must be a JSON object with exactly the keys name, classes"),
        (_put("record", "tasks", 0, "classes", to=["a"] * 10**6), "the logits of task 0 are not those of its classes"),
        (_put("record", "tasks", 0, "temperature", to="hot"), "the stream is not one of this library"),
        (_put("record", "tasks", 0, "widths", to={"backbone.0": 9}), "task 0 has other widths than"),
        (_put("record", "widths", "backbone.0", to=10**9), "the stream has other owners than channels"),
        (_put("record", "widths", to={}), "its groups of channels are {}, and those of this one"),
        (_put("record", "surplus", to=1), "its record must be a JSON object with exactly the keys"),
        (_put("surplus", to=1), "its text must be a JSON object with exactly the keys"),
    ],
)
def test_records_that_nobody_wrote(saved, change, message):
    with pytest.raises(ArtefactError, match=message):
        ContinualLearner.load(forged(saved, change), Small)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"owners.backbone.0": torch.full((8,), 2)}, "owners of 'backbone.0': found tasks that were not learned"),
        ({"owners.backbone.0": torch.full((8,), -2)}, "owners of 'backbone.0': found tasks that were not learned"),
        ({"owners.backbone.0": torch.zeros(8)}, "owners.backbone.0': expected int64 .8,., found float32"),
        ({"heads.0.2.weight": torch.zeros(2, 7)}, "heads.0.2.weight': expected float32 .2, 6., found float32 .2, 7."),
        ({"heads.9.2.weight": torch.zeros(2, 6)}, "heads.9.2.weight': expected nothing, found"),
        ({"norms.0.backbone.1.weight": torch.zeros(8)}, "norms.0.backbone.1.weight': expected nothing"),
        ({"tasks.0.precision": torch.zeros(1, 1)}, "the profile of task 0 has impossible shapes"),
    ],
)
def test_tensors_that_nobody_wrote(saved, tensors, message):
    with pytest.raises(ArtefactError, match=message):
        ContinualLearner.load(forged(saved, lambda _: None, tensors), Small)


def test_a_huge_network_is_not_built(tmp_path):
    spec = NetworkSpec("mlp", SHAPE, 2, {"width": 8, "depth": 1})
    looped(ContinualLearner(spec, settings=SETTINGS), [0]).save(tmp_path / "a")
    for arguments, message in [
        ({"width": 4096, "depth": 8}, r"cannot be built \(it has more than \d+ parameters, out of proportion"),
        ({"width": 16384}, r"cannot be built \(width must be a whole number"),
    ]:
        change = _put("record", "network", "arguments", to=arguments)
        with pytest.raises(ArtefactError, match=message):
            ContinualLearner.load(forged(tmp_path / "a", change))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (None, r"not one that the library knows by name: pass it, as in load\(path, backbone=MyNet\)"),
        (lambda: Small(9), "its groups of channels are .*'backbone.0': 8.*, and those of this one .*'backbone.0': 9"),
        (lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3)), "another backbone"),
        (lambda: nn.Conv2d(3, 8, 3), "another backbone: the backbone fails on inputs"),
        (lambda: Small().double(), "another backbone"),
    ],
)
def test_another_backbone_is_refused(saved, backbone, message):
    with pytest.raises(ArtefactError, match=message):
        ContinualLearner.load(saved, backbone)


def test_what_was_changed_in_a_file_with_a_right_digest_is_still_caught(saved):
    weight = safetensors.load_file(saved)["backbone.0.weight"]
    owner = safetensors.load_file(saved)["owners.backbone.0"]
    row = int((owner == 0).nonzero()[0])
    weight[row] *= 1 + 1e-6
    read = ContinualLearner.load(forged(saved, lambda _: None, {"backbone.0.weight": weight}), Small)
    with pytest.raises(NetworkError, match=r"backbone\.0\.weight of task 0"):
        read.check_forgetting()
