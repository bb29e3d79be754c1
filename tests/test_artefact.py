from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from structured_ensembles import artefact, networks, topology
from structured_ensembles.artefact import Record, TensorSpec
from structured_ensembles.errors import ArtefactError
from structured_ensembles.extraction import draw, extract
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.types import Combine, Cut, Group, Side

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


# --- sizes and bytes ------------------------------------------------------------------------------------------------

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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


# --- files that are not what they should be -------------------------------------------------------------------------


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


def test_a_flipped_bit_in_any_byte_is_found(tmp_path):
    content = bytes_of(tmp_path)
    path = tmp_path / "damaged"
    path.write_bytes(content)
    for position, byte in enumerate(content):
        flips = [1 << position % 8, 0x20] if position < 256 else [1 << position % 8]  # 0x20: the other case of a letter
        for flip in flips:
            patch_byte(path, position, byte ^ flip)
            with pytest.raises(ArtefactError):
                artefact.read(path)
        patch_byte(path, position, byte)
    artefact.read(path)


def patch_byte(path, position, byte):
    with path.open("r+b") as file:
        file.seek(position)
        file.write(bytes([byte]))


def test_flipped_bytes_in_a_real_ensemble_are_found(small, tmp_path):
    content = bytes_of(tmp_path, small[1], small[0])
    chance = random.Random(0)  # noqa: S311
    for _ in range(40):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= chance.randrange(1, 256)
        refusal(tmp_path, bytes(damaged))


def test_truncated_and_lengthened_files(tmp_path):
    content = bytes_of(tmp_path)
    for length in [*range(0, len(content), 7), len(content) - 1]:
        refusal(tmp_path, content[:length])
    assert "damaged or cut short" in refusal(tmp_path, content[:-1])
    assert "damaged or cut short" in refusal(tmp_path, content + b"\0")


def saved_by_torch(**options):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"\0" * 5000, "is not an artefact"),
        (b"hello", "is not an artefact"),
        (saved_by_torch(), "zip archive, as torch.save"),
        (saved_by_torch(_use_new_zipfile_serialization=False), "is a pickle"),
        *((pickle.dumps({"a": 1}, protocol), "is a pickle") for protocol in range(2, 6)),
        ((2).to_bytes(8, "little") + b"{}", "is a safetensors file, but not an artefact of this library"),
    ],
)
def test_other_kinds_of_files(tmp_path, content, match):
    assert match in refusal(tmp_path, content)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("content", [pickle.dumps(Bomb()), pickle.dumps(Bomb(), 0)])
def test_pickles_are_never_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    refusal(tmp_path, content)
    assert not Path("exploded").exists()


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ArtefactError, match=r"gone: there is no such file: check the path"):
        artefact.read(tmp_path / "gone")
    with pytest.raises(ArtefactError, match=r"is a folder: name the artefact in it"):
        artefact.read(tmp_path)
    with pytest.raises(ArtefactError, match=r"not a regular file"):
        artefact.read(Path("/dev/null"))


def test_unreadable_files(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")

    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(ArtefactError, match=r"cannot be read \(Permission denied\)"):
        artefact.read(tmp_path / "a")


def test_a_newer_format_asks_for_an_update(tmp_path):
    text = refusal(tmp_path, bytes_of(tmp_path).replace(b'ensembles":"1"', b'ensembles":"2"', 1))
    assert "has format 2, and this version of structured-ensembles reads up to 1: update it" in text


# --- files made to harm: their digests are right --------------------------------------------------------------------


def sealed(header, data=b"abcd"):
    """A file around any header, with the digest that it should have."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = len(text).to_bytes(8, "little") + text + data
    digest = hashlib.sha256(content).hexdigest().encode()
    return content.replace(b"0" * 64, digest, 1)


def header_of(tmp_path, record=PLAIN):
    content = bytes_of(tmp_path, [{"w": torch.ones(1)}] * record.members, record)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    header["__metadata__"]["sha256"] = "0" * 64
    return header


def test_the_forger_of_these_tests_makes_files_that_are_read(tmp_path):
    path = tmp_path / "forged"
    path.write_bytes(sealed(header_of(tmp_path)))
    assert artefact.read(path)[1][0]["w"].shape == (1,)


CUT_RECORD = replace(PLAIN, groups=GROUPS, channels=(random_channels(GROUPS, 0),))


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("method", 3, "method must be a text, not a int"),
        ("method", "x" * 5000, "at most 1000 characters"),
        ("members", True, "members must be a whole number"),
        ("members", 1.0, "members must be a whole number"),
        ("members", 0, "members must be a whole number from 1"),
        ("members", 10**4000, "members must be a whole number"),
        ("members", 2**31 - 1, "kept channels of 1 members"),
        ("classes", "cat", "classes must be a list"),
        ("classes", [], "at least one class"),
        ("classes", [None], "a class must be a text"),
        ("input_shape", [1, -1], "a side of input_shape"),
        ("input_shape", [2**31 - 1] * 3, "elements"),
        ("input_shape", [2**31 - 1] * 100000, "at most 8 dimensions"),
        ("combine", "vote", "combine must be one of probabilities, logits"),
        ("combine", ["logits"], "combine must be one of"),
        ("network", "os.system", "must be a JSON object"),
        ("network", {"name": "small_cnn"}, "missing keys"),
        ("network", {"name": "x", "input_shape": [1, 8, 8], "classes": 2, "import": "os"}, "unknown keys"),
        ("groups", {}, "groups must be a list"),
        ("groups", [["a", 4]], "a group must be a list of 3"),
        ("groups", [["a", 0, []]], "a group's channels"),
        ("groups", [["a", 4, [["a", "up", 0, 1]]]], "a cut's side must be one of out, in"),
        ("groups", [["a", 4, [["a", "out", -1, 1]]]], "a cut's offset"),
        ("groups", [["a", 4, [["a", "out", 0, 0]]]], "a cut's repeat"),
        ("groups", [["a", 4, [["a", "out", 0, 1, 5]]]], "a cut must be a list of 4"),
        ("groups", [["a", 11, []], ["a", 8, []]], "two groups have the same name"),
        ("channels", [["ffe0"]], "must be a list of 2"),
        ("channels", [["ffe0", "00"]], "at least one channel"),
        ("channels", [["fff0", "ff"]], "from 0 to 10"),
        ("channels", [["ff", "ff"]], "not a mask of 11 bits"),
        ("channels", [["FFE0", "ff"]], "not a mask of 11 bits"),
        ("channels", [[" fe0", "ff"]], "not a mask of 11 bits"),
        ("channels", [[5, "ff"]], "kept channels must be a text"),
        ("channels", [["ffe0", "ff"]] * 2, "kept channels of 2 members were given, not of 1"),
        ("module", "os", "exactly the keys"),
    ],
)
def test_records_with_one_wrong_value(tmp_path, key, value, match):
    header = header_of(tmp_path, CUT_RECORD)
    record = json.loads(header["__metadata__"]["record"])
    record[key] = value
    header["__metadata__"]["record"] = json.dumps(record)
    assert match in refusal(tmp_path, sealed(header))


@pytest.mark.parametrize(
    ("key", "text", "match"),
    [
        ("record", "[]", "the record must be a JSON object"),
        ("record", "{", "not the JSON of an artefact"),
        ("record", "[" * 100000, "not the JSON of an artefact"),
        ("record", '{"method":"a","method":"b"}', "a key occurs twice"),
        ("record", '{"members":' + "9" * 5000 + "}", "not the JSON of an artefact"),
        ("record", 7, "the record must be a text"),
        ("summary", "[]", "the summary must be a JSON object"),
        ("summary", '{"a":NaN}', "NaN is not a number"),
        ("summary", '{"a":1e999}', "the summary is not JSON"),
        ("summary", '{"a":1,"a":2}', "a key occurs twice"),
        ("summary", '{"a":"' + "x" * 5000 + '"}', "longer than the 2048"),
        ("unknown", "", "exactly the keys"),
    ],
)
def test_metadata_that_is_wrong(tmp_path, key, text, match):
    header = header_of(tmp_path)
    header["__metadata__"][key] = text
    assert match in refusal(tmp_path, sealed(header))


@pytest.mark.parametrize(
    ("table", "data", "match"),
    [
        ({}, b"", "it names 1 members, and holds 0 tensors"),
        ({"1.w": ["F32", [1], 0, 4]}, b"abcd", "tensor '1.w' belongs to none of the 1 members"),
        ({"w": ["F32", [1], 0, 4]}, b"abcd", "belongs to none"),
        ({"00.w": ["F32", [1], 0, 4]}, b"abcd", "belongs to none"),
        ({"0.w": ["F32", [2], 0, 4]}, b"abcd", "table of tensors is not valid"),
        ({"0.w": ["F32", [2**40], 0, 2**42]}, b"abcd", "table of tensors is not valid"),
        ({"0.w": ["F32", [2**62, 4], 0, 0]}, b"", "table of tensors is not valid"),
        ({"0.w": ["F32", [-1], 0, 4]}, b"abcd", "table of tensors is not valid"),
        ({"0.w": ["F32", [1], 0, 4], "0.v": ["F32", [1], 0, 4]}, b"abcd", "table of tensors is not valid"),
        ({"0.w": ["F32", [1], 0, 4]}, b"abcdefgh", "table of tensors is not valid"),
        ({"0.w": ["OBJ", [1], 0, 4]}, b"abcd", "table of tensors is not valid"),
        ({"0.w": ["C64", [1], 0, 8]}, b"abcdefgh", "the type C64, which no member has"),
        ({"0.w": ["F32", [0, 2**62, 2**62], 0, 0]}, b"", "impossible shape"),
        ({"0.w": ["F32", [1] * 100, 0, 4]}, b"abcd", "impossible shape"),
    ],
)
def test_tables_of_tensors_that_are_wrong(tmp_path, table, data, match):
    header = {"__metadata__": header_of(tmp_path)["__metadata__"]}
    for name, (dtype, shape, start, end) in table.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    assert match in refusal(tmp_path, sealed(header, data))


def test_a_member_without_tensors_is_refused(tmp_path):
    header = header_of(tmp_path, replace(PLAIN, members=2))
    header["0.v"] = header.pop("1.w")
    assert "one of its members has no tensors" in refusal(tmp_path, sealed(header, b"abcdefgh"))


def test_headers_that_are_no_json(tmp_path):
    start = b'{"__metadata__":{"structured_ensembles":"1","sha256":"' + b"0" * 64 + b'"'
    assert "not the JSON" in refusal(tmp_path, sealed(start + b"}"))
    assert "not the JSON" in refusal(tmp_path, sealed(start + b',"\xff":1}}'))
    assert "a key occurs twice" in refusal(tmp_path, sealed(start + b'},"0.w":{},"0.w":{}}'))


# --- rebuilding members ---------------------------------------------------------------------------------------------


def test_members_share_nothing_and_the_generator_stays(small):
    record, tensors, _ = small
    before = torch.get_rng_state()
    restored = artefact.restore(record, tensors)
    assert torch.equal(before, torch.get_rng_state())
    memory = [tensor.data_ptr() for member in restored for tensor in member.state_dict().values() if tensor.numel()]
    memory += [tensor.data_ptr() for state in tensors for tensor in state.values()]
    assert len(set(memory)) == len(memory)


def test_uncut_members(small, tmp_path):
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
