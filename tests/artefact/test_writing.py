"""Sizes known before training, the same bytes for the same contents, and whole files or none."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from structured_ensembles.artefact import file as artefact
from structured_ensembles.artefact.file import Record, TensorSpec
from structured_ensembles.errors import ArtefactError
from structured_ensembles.options.choices import Combine

from .conftest import DTYPES, GROUPS, PLAIN, SPECS, random_channels, random_tensor, same_records, same_tensors

TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=8, alphabet=st.characters(codec="utf-8")),
    st.tuples(st.lists(st.integers(0, 4), max_size=3), st.sampled_from(DTYPES)),
    min_size=1,
    max_size=4,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tables=st.lists(TENSORS, min_size=1, max_size=3),
    classes=st.lists(st.text(max_size=6), min_size=1, max_size=4),
    summary=st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
    cut=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_size_is_exact_and_everything_comes_back(tmp_path, tables, classes, summary, cut, seed):
    path = tmp_path / f"{random.random()}"  # noqa: S311
    members = [{n: random_tensor(shape, dtype, seed) for n, (shape, dtype) in table.items()} for table in tables]
    channels = tuple(random_channels(GROUPS, seed + at) for at in range(len(members))) if cut else ()
    kept = {"groups": GROUPS, "channels": channels}
    record = Record("m", len(members), tuple(classes), (3,), Combine.LOGITS, None, **kept, summary=summary)
    predicted = artefact.file_bytes([artefact.specs(member) for member in members], record)
    artefact.write(path, members, record)
    assert path.stat().st_size == predicted
    read, tensors = artefact.read(path)
    same_records(record, read)
    for member, restored in zip(members, tensors, strict=True):
        same_tensors(member, restored)
    path.unlink()


def test_size_depends_on_neither_the_channels_kept_nor_the_summary():
    table = [{"w": TensorSpec((4, 2), torch.float32)}]
    record = replace(PLAIN, groups=GROUPS, channels=(random_channels(GROUPS, 0),))
    sizes = {artefact.file_bytes(table, record)}
    sizes |= {artefact.file_bytes(table, replace(record, channels=(random_channels(GROUPS, s),))) for s in range(20)}
    sizes |= {
        artefact.file_bytes(table, replace(record, summary={"é": ["\\", '"', "\n", 0.1, size]})) for size in range(9)
    }
    assert len(sizes) == 1


def test_size_of_large_ensembles_is_arithmetic():
    table = [{f"stage.{i}.weight": TensorSpec((512, 512, 3, 3), torch.float32) for i in range(200)}] * 4
    size = artefact.file_bytes(table, replace(PLAIN, members=4))
    tensors = 4 * 200 * 512 * 512 * 9 * 4
    assert tensors < size < tensors + 4 * 200 * 150 + artefact.SUMMARY_BYTES + 1000


def test_a_real_ensemble_round_trips(ensemble, tmp_path):
    record, tensors, members = ensemble
    path = tmp_path / "net"
    artefact.write(path, tensors, record)
    assert path.stat().st_size == artefact.file_bytes([artefact.specs(state) for state in tensors], record)
    read, states = artefact.read(path)
    same_records(record, read)
    x = random_tensor((2, *record.input_shape), torch.float32)
    for member, restored in zip(members, artefact.restore(read, states), strict=True):
        assert not any(module.training for module in restored.modules())
        same_tensors(member.state_dict(), restored.state_dict())
        assert torch.equal(member(x), restored(x))


def test_the_same_contents_give_the_same_bytes(small, tmp_path):
    record, tensors, _ = small
    artefact.write(tmp_path / "a", tensors, record)
    shuffled = [dict(reversed(state.items())) for state in tensors]
    artefact.write(tmp_path / "b", shuffled, record)
    read, states = artefact.read(tmp_path / "a")
    artefact.write(tmp_path / "c", states, read)
    assert len({hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in "abc"}) == 1


def test_other_safetensors_readers_can_open_it(small, tmp_path):
    record, tensors, _ = small
    artefact.write(tmp_path / "a", tensors, record)
    with safe_open(tmp_path / "a", "pt") as file:
        assert file.metadata()["structured_ensembles"] == "1"
        for member, state in enumerate(tensors):
            for name, tensor in state.items():
                assert torch.equal(file.get_tensor(f"{member}.{name}"), tensor)


def test_tensors_may_be_views_or_shared(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"t": base.T, "part": base[1:, 1], "whole": base, "scalar": torch.tensor(7)}
    artefact.write(tmp_path / "a", [state, state], replace(PLAIN, members=2))
    for read in artefact.read(tmp_path / "a")[1]:
        same_tensors(state, read)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_may_be_on_a_gpu(tmp_path):
    artefact.write(tmp_path / "a", [{"w": torch.ones(3, device="cuda")}], PLAIN)
    same_tensors(artefact.read(tmp_path / "a")[1][0], {"w": torch.ones(3)})


# --- writing --------------------------------------------------------------------------------------------------------


def test_nothing_is_written_over(tmp_path):
    path = tmp_path / "mine"
    path.write_text("precious")
    with pytest.raises(ArtefactError, match=r"mine exists already: choose another name"):
        artefact.write(path, [{"w": torch.ones(1)}], PLAIN)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("step", ["replace", "open"])
def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, step):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(ArtefactError, match=r"cannot be written \(No space left on device\)"):
        artefact.write(tmp_path / "a", [{"w": torch.ones(1)}], PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_killed_before_the_rename_the_file_does_not_exist(tmp_path, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process tidies nothing
        with pytest.raises(KeyboardInterrupt):
            artefact.write(tmp_path / "a", [{"w": torch.ones(1)}], PLAIN)
    assert not (tmp_path / "a").exists()
    artefact.write(tmp_path / "a", [{"w": torch.ones(1)}], PLAIN)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ArtefactError, match=r"nowhere.a cannot be written .*check that its folder exists"):
        artefact.write(tmp_path / "nowhere" / "a", [{"w": torch.ones(1)}], PLAIN)


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ([], r"0 members were given, and the record has 1"),
        ([{}], r"without any tensor"),
        ([{"w": torch.ones(1, dtype=torch.complex64)}], r"'w' \(complex64\) cannot be stored: only .* float32"),
        ([{"w": torch.ones(2).to_sparse()}], r"only dense"),
        ([{"w._extra_state": {"a": 1}}], r"'w._extra_state' \(dict\) cannot be stored"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path, members, match):
    with pytest.raises(ArtefactError, match=match):
        artefact.write(tmp_path / "a", members, PLAIN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"members": 0}, r"at least 1 member, not 0"),
        ({"classes": ()}, r"at least one class"),
        ({"input_shape": (1, 0)}, r"all above 0.*not \(1, 0\)"),
        ({"input_shape": (2**20, 2**20)}, r"268435456 elements"),
        ({"input_shape": (1,) * 9}, r"at most 8 dimensions"),
        ({"network": SPECS["small_cnn"]}, r"10 classes and inputs \(1, 8, 8\), but the record has 2 and \(1, 8, 8\)"),
        ({"groups": GROUPS[:1] * 2}, r"two groups have the same name"),
        ({"groups": GROUPS, "channels": ({}, {})}, r"kept channels of 2 members were given, not of 1"),
        ({"channels": ({"a": torch.tensor([0])},)}, r"keeps channels of a group 'a', which is not recorded"),
        ({"groups": GROUPS, "channels": ({"b": torch.tensor([8])},)}, r"from 0 to 7"),
        ({"groups": GROUPS, "channels": ({"b": torch.tensor([-1])},)}, r"from 0 to 7"),
        ({"groups": GROUPS, "channels": ({"b": torch.tensor([2, 1])},)}, r"sorted"),
        ({"groups": GROUPS, "channels": ({"b": torch.tensor([1, 1])},)}, r"each once"),
        ({"groups": GROUPS, "channels": ({"b": torch.tensor([], dtype=torch.int64)},)}, r"at least one"),
        ({"groups": GROUPS, "channels": ({"b": torch.tensor([1.0])},)}, r"int64"),
        ({"summary": {"loss": float("nan")}}, r"not JSON .*use finite numbers"),
        ({"summary": {"loss": [float("inf")]}}, r"not JSON"),
        ({"summary": {"x": torch.ones(1)}}, r"not JSON"),
        ({"summary": {1: "a"}}, r"read back changed"),
        ({"summary": {"x": (1, 2)}}, r"read back changed"),
        ({"summary": {"x": "a" * 3000}}, r"is 964 bytes longer than the 2048 reserved for it: shorten it"),
    ],
)
def test_records_that_contradict_themselves(changes, match):
    with pytest.raises(ArtefactError, match=match):
        replace(PLAIN, **changes)


def test_a_summary_may_fill_its_room_to_the_last_byte(tmp_path):
    frame = len(json.dumps('{"x":""}')) - 2
    full = replace(PLAIN, summary={"x": "a" * (artefact.SUMMARY_BYTES - frame)})
    artefact.write(tmp_path / "a", [{"w": torch.ones(1)}], full)
    assert artefact.read(tmp_path / "a")[0].summary == full.summary
    with pytest.raises(ArtefactError, match=r"is 1 bytes longer"):
        replace(PLAIN, summary={"x": full.summary["x"] + "a"})


def test_names_that_could_not_be_read_back_are_not_written(tmp_path):
    with pytest.raises(ArtefactError, match=r"a class must have at most 1000 characters"):
        artefact.write(tmp_path / "a", [{"w": torch.ones(1)}], replace(PLAIN, classes=("a" * 1001,)))
    assert list(tmp_path.iterdir()) == []
