"""Damaged files are refused by name, and nothing in them is run."""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path

import pytest
import torch

from structured_ensembles.artefact import file as artefact
from structured_ensembles.errors import ArtefactError

from .conftest import bytes_of, refusal


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


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")

    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(ArtefactError, match=r"cannot be read \(Permission denied\)"):
        artefact.read(tmp_path / "a")


def test_a_newer_format_asks_for_an_update(tmp_path):
    text = refusal(tmp_path, bytes_of(tmp_path).replace(b'ensembles":"1"', b'ensembles":"2"', 1))
    assert "has format 2, and this version of structured-ensembles reads up to 1: update it" in text
