from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.corruptions.files import as_tensor, read_images, read_labels


def test_rows_are_severity_after_severity(tmp_path):
    images = np.arange(10 * 8 * 8 * 3, dtype=np.int64).astype(np.uint8).reshape(10, 8, 8, 3)
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "labels.npy", np.arange(10, dtype=np.uint8))
    labels = read_labels(tmp_path)
    assert labels.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    read = read_images(tmp_path, "fog", labels.shape)
    assert isinstance(read, np.memmap)
    np.testing.assert_array_equal(read[3], images[6:8])
    assert as_tensor(read[3]).shape == (2, 3, 8, 8)
    assert as_tensor(read[3])[1, 2, 4, 5] == images[7, 4, 5, 2]


def broken(tmp_path, content: object) -> None:
    path = tmp_path / "fog.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)


def cut_short(tmp_path) -> bytes:
    broken(tmp_path, np.zeros((10, 8, 8, 3), dtype=np.uint8))
    return (tmp_path / "fog.npy").read_bytes()[:-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cut_short, "fog.npy is damaged"),
        (b"", "fog.npy is damaged"),
        (b"\x93NUMPY\x01\x00", "fog.npy is damaged"),
        (b"no array at all", "fog.npy is damaged"),
        (np.array([{"a": 1}], dtype=object), "fog.npy is damaged, or no array of numbers"),
        (np.zeros((10, 8, 8, 3)), "fog.npy holds float64"),
        (np.zeros((10, 3, 8, 8), dtype=np.uint8), r"expected uint8 of shape \(10, height, width, 3\)"),
        (np.zeros((8, 8, 8, 3), dtype=np.uint8), r"fog.npy holds uint8 of shape \(8, 8, 8, 3\)"),
        (np.zeros(10, dtype=np.uint8), r"shape \(10,\)"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, message):
    broken(tmp_path, content(tmp_path) if callable(content) else content)
    with pytest.raises(DataError, match=message):
        read_images(tmp_path, "fog", (5, 2))


@pytest.mark.filterwarnings("ignore")  # of what looks like Python in a broken header
@given(st.dictionaries(st.integers(0, 127), st.one_of(st.sampled_from(b"0123456789,()'{}:|uf"), st.integers(0, 255))))
@settings(max_examples=150)
def test_a_header_with_other_bytes_is_read_or_refused(changes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fog.npy"
        np.save(path, np.zeros((10, 8, 8, 3), dtype=np.uint8))
        content = bytearray(path.read_bytes())
        for at, byte in changes.items():
            content[at] = byte
        path.write_bytes(content)
        try:
            outcome = str(read_images(Path(folder), "fog", (5, 2)).shape)
        except DataError as error:
            outcome = str(error)
        assert "(5, 2" in outcome or "fog.npy" in outcome


def test_an_archive_is_no_array(tmp_path):
    with (tmp_path / "fog.npy").open("wb") as file:
        np.savez(file, images=np.zeros(3))
    with pytest.raises(DataError, match="damaged, or no array of numbers"):
        read_images(tmp_path, "fog", (5, 2))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"fog\.npy does not exist"):
        read_images(tmp_path, "fog", (5, 2))


@pytest.mark.parametrize("labels", [np.zeros(10), np.zeros((5, 2), int), np.zeros(9, int), np.zeros(0, int)])
def test_labels_that_are_none(tmp_path, labels):
    np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(DataError, match=r"labels.npy holds .* expected integers of shape \(5 N,\)"):
        read_labels(tmp_path)
