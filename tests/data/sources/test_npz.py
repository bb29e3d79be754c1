from __future__ import annotations

import contextlib
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from structured_ensembles.data.sources import load
from structured_ensembles.errors import DataError, StructensError

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def write(tmp_path):
    """Write an archive of good arrays with some of them replaced; None leaves one out."""

    def _write(**replaced):
        path = tmp_path / "some.npz"
        arrays = {"x_train": BYTES, "y_train": LABELS, "x_test": BYTES[:3], "y_test": LABELS[:3]} | replaced
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
        return str(path)

    return _write


def both(images):
    return {"x_train": images, "x_test": images[:3]}


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (BYTES, BYTES.transpose(0, 3, 1, 2)),
        (BYTES.transpose(0, 3, 1, 2), BYTES.transpose(0, 3, 1, 2)),
        (BYTES[..., 0], BYTES[:, None, :, :, 0]),
        (BYTES[..., :1], BYTES[:, None, :, :, 0]),
    ],
    ids=["channels last", "channels first", "no channels", "one channel last"],
)
def test_every_layout_becomes_channels_first(write, images, expected):
    data = load(write(**both(images)))
    assert torch.equal(data.train.images, torch.from_numpy(expected.copy()))
    assert data.train.images.dtype == torch.uint8
    assert data.input_shape == expected.shape[1:]
    assert data.classes == ("0", "1", "2")
    assert data.notices == ()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_unit_floats_stay_as_they_are(write, dtype):
    images = (BYTES / 255).astype(dtype)
    data = load(write(**both(images)))
    assert torch.equal(data.train.images, torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2))
    assert data.notices == ()


def test_byte_floats_are_divided_with_a_notice(write):
    data = load(write(**both(BYTES.astype(np.float64))))
    assert torch.allclose(data.train.images, torch.from_numpy(BYTES / 255).permute(0, 3, 1, 2).float())
    assert data.notices[0] == f"x_train holds floats up to {BYTES.max()}: divided by 255."


def test_wide_integers_are_read_as_bytes_with_a_notice(write):
    data = load(write(**both(BYTES.astype(np.int64))))
    assert torch.equal(data.train.images, torch.from_numpy(BYTES).permute(0, 3, 1, 2))
    assert "int64" in data.notices[0]


def test_booleans_become_black_and_white(write):
    data = load(write(**both(BYTES > 127)))
    assert data.train.images.unique().tolist() == [0, 255]
    assert "boolean" in data.notices[0]


@pytest.mark.parametrize("labels", [LABELS.astype(np.uint8), LABELS.astype(">i2"), LABELS[:, None]])
def test_labels_of_any_integer_type_and_of_one_column(write, labels):
    found = load(write(y_train=labels)).train.labels
    assert found.tolist() == LABELS.tolist()
    assert found.dtype == torch.int64


def test_a_class_without_test_images_is_noticed(write):
    data = load(write(x_test=BYTES[:2], y_test=LABELS[:2]))
    assert data.notices == ("The test set has no image of class 2.",)


def with_pixel(value, where, images=BYTES / 255):
    changed = images.copy()
    changed[where] = value
    return changed


BAD = {
    "lacks arrays": ({"y_test": None, "x_test": None}, "has no x_test, y_test: it holds x_train, y_train"),
    "nan": (
        {"x_train": with_pixel(np.nan, (2, 1, 5))},
        r"3 NaN or infinite pixels, the first at x_train\[2, 1, 5, 0\]",
    ),
    "negative float": ({"x_train": BYTES / 255 - 0.5}, r"go from -0\.5 to 0\.5: floats must be in \[0, 1\]"),
    "overshot float": ({"x_train": with_pixel(1.25, (0, 0, 0, 0))}, r"to 1\.25: floats must be"),
    "large float": ({"x_train": BYTES * 2.0}, r"floats must be in \[0, 1\]"),
    "two scales": ({"x_train": BYTES / 255, "x_test": BYTES[:3] * 1.0}, "white is 1 in x_train but 255 in x_test"),
    "uint16": ({"x_train": BYTES.astype(np.uint16) * 257}, r"\(uint16\) go from .* integers must be 0 to 255"),
    "negative int": ({"x_train": BYTES.astype(np.int16) - 1}, "integers must be 0 to 255"),
    "complex": ({"x_train": BYTES.astype(complex)}, "x_train holds complex128: pixels must be"),
    "text": ({"x_train": BYTES.astype(str)}, "x_train holds <U3: pixels must be"),
    "flat": ({"x_train": BYTES.reshape(6, -1)}, r"shape \(6, 216\): images must be"),
    "ambiguous": ({"x_train": BYTES.transpose(0, 3, 1, 2)[..., :3]}, "both the second and the last dimension"),
    "no channels": ({"x_train": np.zeros((6, 7, 8, 9), np.uint8)}, "neither the second nor the last dimension"),
    "no images": ({"x_train": BYTES[:0], "y_train": LABELS[:0]}, "y_train holds 0 labels"),
    "no pixels": ({"x_train": BYTES[:, :0]}, "its images have no pixels"),
    "scalar": ({"x_train": np.uint8(3)}, "x_train holds 0 images, but y_train 6 labels"),
    "shapes": ({"x_test": BYTES[:3, :, :7]}, r"\(3, 8, 9\) .* but test images \(3, 8, 7\)"),
    "other length": ({"y_train": LABELS[:5]}, "x_train holds 6 images, but y_train 5 labels"),
    "float labels": (
        {"y_train": LABELS * 1.0},
        r'holds float64: labels must be integers; store y_train.astype\("int64"\)',
    ),
    "text labels": ({"y_test": LABELS[:3].astype(str)}, "y_test holds text: number the classes from 0 on"),
    "one-hot": ({"y_train": np.eye(3, dtype=int)[LABELS]}, r"one-hot rows take argmax\(axis=1\)"),
    "scalar label": ({"y_train": np.int64(1)}, r"y_train has shape \(\): labels must be"),
    "negative": ({"y_train": LABELS - 1}, "negative label -1 at index 0"),
    "huge": ({"y_train": np.uint64(2**63) + LABELS.astype(np.uint64)}, "labels go from 0"),
    "one class": ({"y_train": LABELS * 0}, "y_train holds one class only"),
    "gap": ({"y_train": LABELS * 2}, "goes from 0 to 4, but no image has label 1: number the 3 classes 0 to 2"),
    "far gap": ({"y_train": LABELS * 2**40}, "but no image has label 1"),
    "unknown test label": (
        {"y_test": np.array([0, 1, 3])},
        "y_test holds the label 3 at index 2: the 3 training classes",
    ),
}


@pytest.mark.parametrize(("replaced", "message"), BAD.values(), ids=BAD)
def test_bad_arrays_are_refused(write, replaced, message):
    with pytest.raises(DataError, match=message):
        load(write(**replaced))


def test_an_index_of_infinity_is_that_of_the_stored_array(write):
    images = with_pixel(-np.inf, (1, 2, 3, 2))
    with pytest.raises(DataError, match=r"x_test holds 1 NaN or infinite pixels, the first at x_test\[1, 2, 3, 2\]"):
        load(write(x_test=images[:3]))


def test_object_arrays_are_never_unpickled(write):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code ran",))

    path = write(x_train=np.array([Trap()], dtype=object))
    with pytest.raises(DataError, match="pickled Python objects"):
        load(path)


def test_a_pickle_under_the_name_of_an_archive_is_refused(tmp_path):
    path = tmp_path / "some.npz"
    path.write_bytes(pickle.dumps({"x_train": 1}))
    with pytest.raises(DataError, match=r"is not an \.npz archive.*pickled files are never read"):
        load(str(path))


def test_an_empty_and_a_truncated_file_are_refused(write, tmp_path):
    path = tmp_path / "empty.npz"
    path.touch()
    with pytest.raises(DataError, match=r"empty \(0 bytes\)"):
        load(str(path))
    path.write_bytes((tmp_path / write()).read_bytes()[:-100])
    with pytest.raises(DataError, match="cut short"):
        load(str(path))


def test_a_flipped_pixel_byte_is_noticed_by_the_checksum(write, tmp_path):
    path = tmp_path / write()
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged or cut short"):
        load(str(path))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_damaged_archive_never_raises_anything_but_our_errors(write, tmp_path, places):
    content = bytearray((tmp_path / write()).read_bytes())
    for where, value in places:
        content[int(where * len(content))] = value
    path = tmp_path / "damaged.npz"
    path.write_bytes(content)
    with contextlib.suppress(StructensError):
        load(str(path))


# --- white is white in both sets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (BYTES // 128, BYTES[:3] > 127, "the pixels of x_train are 0 and 1 of 255: store booleans"),
        (
            BYTES // 16,
            BYTES[:3] / 255,
            r"the brightest pixel is 0\.059 of white in x_train but 1 in x_test: store both alike",
        ),
        (BYTES > 127, BYTES[:3] // 128, r"is 1 of white in x_train but 0\.0039 in x_test"),
    ],
)
def test_sets_of_another_scale_are_refused(write, train, test, message):
    with pytest.raises(DataError, match=message):
        load(write(x_train=train, x_test=test))


def test_dark_images_are_told_of(write):
    assert "the brightest pixel of x_train is 15 of 255" in load(write(**both(BYTES // 16))).notices[-1]
