"""Files made to harm, whose digests are right."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from structured_ensembles.artefact import file as artefact

from .conftest import GROUPS, PLAIN, bytes_of, random_channels, refusal


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
