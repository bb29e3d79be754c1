from __future__ import annotations

import contextlib

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from PIL import Image

from structured_ensembles.data.sources import read_images
from structured_ensembles.errors import DataError, StructensError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)


@pytest.fixture
def colour(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "colour.png")
    return str(tmp_path / "colour.png")


@pytest.fixture
def grey(tmp_path):
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "grey.png")
    return str(tmp_path / "grey.png")


def test_an_image_of_the_right_shape_is_left_alone(colour):
    reading = read_images([colour], (3, 8, 6))
    assert torch.equal(reading.images[0], torch.from_numpy(PIXELS).permute(2, 0, 1))
    assert reading.names == (colour,)
    assert reading.notices == ()


def test_size_and_channels_are_adapted_with_notices(colour, grey):
    reading = read_images([grey, colour], (1, 4, 3))
    assert reading.images.shape == (2, 1, 4, 3)
    assert reading.notices == (
        f"{grey} was resized from 8x6 (height x width) to 4x3.",
        f"{colour} was made grey, as the network takes it.",
        f"{colour} was resized from 8x6 (height x width) to 4x3.",
    )
    repeated = read_images([grey], (3, 8, 6)).images[0]
    assert torch.equal(repeated, torch.from_numpy(PIXELS[..., 0]).expand(3, -1, -1))


def test_what_is_transparent_is_laid_on_white_with_a_notice(tmp_path):
    path = tmp_path / "cut-out.png"
    Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]])).save(path)
    assert read_images([str(path)], (3, 8, 6)).notices == (f"{path} is transparent: it was laid on white.",)


@pytest.mark.parametrize("shape", [(1, 8, 6), (3, 4, 3), (1, 5, 7), (3, 16, 12)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_an_archive_and_a_file_of_the_same_pixels_agree(tmp_path, colour, shape, kind):
    stored = PIXELS[None] if kind is np.uint8 else PIXELS[None].astype(kind) / 255
    np.savez(tmp_path / "images.npz", x=stored)
    archive, file = read_images([str(tmp_path / "images.npz")], shape), read_images([colour], shape)
    scale = 1 if kind is np.uint8 else 255
    assert torch.allclose(archive.images.float() * scale, file.images.float(), atol=1.5)
    assert len(archive.notices) == len(file.notices)


def test_an_archive_gives_all_its_images_and_prefers_x(tmp_path, grey):
    images = np.random.default_rng(1).random((3, 8, 6))
    np.savez(tmp_path / "one.npz", x_test=images[::-1], x=images)
    np.savez(tmp_path / "two.npz", x_test=images[::-1])
    one, two = str(tmp_path / "one.npz"), str(tmp_path / "two.npz")
    reading = read_images([one, two, grey], (1, 8, 6))
    expected = np.concatenate([images, images[::-1], PIXELS[None, ..., 0] / 255])
    assert reading.images.dtype == torch.float32
    assert torch.allclose(reading.images[:, 0], torch.from_numpy(expected).float())
    assert reading.names == (*(f"{path}[{i}]" for path in (one, two) for i in range(3)), grey)


def test_bad_files_are_refused(tmp_path, colour):
    np.savez(tmp_path / "other.npz", y=np.zeros(3))
    np.savez(tmp_path / "nan.npz", x=np.full((1, 8, 6), np.nan))
    np.savez(tmp_path / "two.npz", x=np.zeros((1, 2, 8, 6), np.uint8))
    (tmp_path / "array.npy").write_bytes(b"x")
    for name, message in {
        "missing.png": "missing.png does not exist",
        "": "is a folder: name the image files",
        "array.npy": r"array.npy is not an image: known are \.npz",
        "other.npz": "has no x_test: it holds y",
        "nan.npz": r"x of .*nan.npz holds 48 NaN",
        "two.npz": "images of 2 channels cannot become the 3 channels",
    }.items():
        with pytest.raises(DataError, match=message):
            read_images([colour, str(tmp_path / name)], (3, 8, 6))
    with pytest.raises(DataError, match="no images were named"):
        read_images([], (3, 8, 6))
    with pytest.raises(DataError, match="image files have 1 or 3 channels, but the network takes 4"):
        read_images([colour], (4, 8, 6))


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(["png", "jpg", "gif", "bmp", "tif", "webp"]), data=st.data())
def test_damaged_images_never_raise_anything_but_our_errors(tmp_path, suffix, data):
    path = tmp_path / f"damaged.{suffix}"
    Image.fromarray(PIXELS).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with contextlib.suppress(StructensError):
        assert read_images([str(path)], (3, 8, 6)).images.shape == (1, 3, 8, 6)
