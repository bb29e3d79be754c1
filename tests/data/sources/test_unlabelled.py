from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from structured_ensembles.data.sources import load, load_unlabelled, named, read_images
from structured_ensembles.data.sources.records import ImageData, Split
from structured_ensembles.errors import DataError, SettingsError, StructensError
from structured_ensembles.options.catalogue import SOURCES

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 6, 3), dtype=np.uint8)
SHAPE = (3, 8, 6)


@pytest.fixture
def paint(tmp_path):
    """Write images, the i-th of PIXELS to the i-th name, and give the folder that holds them."""

    def _paint(*names, grey=False):
        for name, pixels in zip(names, PIXELS, strict=False):
            path = tmp_path / "some" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[..., 0] if grey else pixels).save(path)
        return tmp_path / "some"

    return _paint


def channels_last(reading):
    return reading.images.permute(0, 2, 3, 1).numpy()


def test_a_name_gives_its_test_images():
    reading = load_unlabelled("digits", (1, 8, 8))
    assert torch.equal(reading.images, load("digits").test.images)
    assert (reading.name, reading.notices) == ("digits", ())
    assert load_unlabelled("DIGITS", (1, 8, 8)).name == "digits"


def test_a_name_is_converted_with_notices():
    reading = load_unlabelled("digits", (3, 12, 10), 20)
    assert reading.images.shape == (20, 3, 12, 10)
    assert torch.equal(reading.images[:, 0], reading.images[:, 2])
    assert reading.notices == (
        f"20 of {len(load('digits').test)} images were read, spread evenly.",
        "20 of 20 images were made colour, as the network takes them.",
        "20 of 20 images were resized to 12x10 (height x width).",
    )


def test_a_named_set_is_looked_for_where_it_is_kept(monkeypatch, tmp_path):
    asked = []
    split = Split(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.arange(12) % 2)

    def svhn(root):
        asked.append(root)
        return ImageData("SVHN", split, split, ("0", "1"))

    monkeypatch.setattr(named, "svhn", svhn)
    reading = load_unlabelled("svhn", SHAPE, root=str(tmp_path))
    assert asked == [tmp_path]
    assert np.array_equal(channels_last(reading), PIXELS)
    assert "SVHN" in SOURCES


@pytest.mark.parametrize(
    "names",
    [("0.png", "1.png", "2.png"), ("a/0.png", "b/1.png", "b/deep/2.PNG"), ("0.png", "a/1.png", "b/2.png")],
    ids=["flat", "nested", "both"],
)
def test_a_folder_gives_all_its_images(paint, names):
    reading = load_unlabelled(str(paint(*names)), SHAPE)
    assert np.array_equal(channels_last(reading), PIXELS[:3])
    assert (reading.name, reading.notices) == ("some", ())


def test_of_a_training_and_a_test_folder_only_the_test_images_are_read(paint):
    folder = paint("Test/a/0.png", "Test/b/1.png", "train/a/2.png", "train/b/3.png", "val/a/4.png")
    reading = load_unlabelled(str(folder), SHAPE)
    assert torch.equal(reading.images, load(str(folder)).test.images)
    assert np.array_equal(channels_last(reading), PIXELS[:2])
    assert reading.notices == (f"Of {folder} only the images in Test were read.",)


def test_a_test_folder_without_a_training_folder_is_a_folder(paint):
    reading = load_unlabelled(str(paint("a.png", "test/b.png")), SHAPE)
    assert np.array_equal(channels_last(reading), PIXELS[:2])


def test_hidden_files_and_other_files_are_skipped(paint):
    folder = paint("a.png", ".b.png", ".cache/c.png")
    (folder / "notes.txt").write_text("one")
    reading = load_unlabelled(str(folder), SHAPE)
    assert np.array_equal(channels_last(reading), PIXELS[:1])
    assert reading.notices == (f"1 files in {folder} are not images and were skipped.",)


def test_files_of_a_folder_are_converted_as_single_files_are(paint):
    folder = paint("a.png", "b.png")
    Image.fromarray(PIXELS[2, :4, :3, 0]).save(folder / "c.png")
    for shape in [(1, 4, 3), (3, 8, 6), (3, 5, 9)]:
        reading = load_unlabelled(str(folder), shape)
        files = read_images([str(folder / name) for name in ("a.png", "b.png", "c.png")], shape)
        assert torch.equal(reading.images, files.images)
    assert load_unlabelled(str(folder), (1, 4, 3)).notices == (
        "2 of 3 images were made grey, as the network takes them.",
        "2 of 3 images were resized to 4x3 (height x width).",
    )
    assert load_unlabelled(str(folder), SHAPE).notices == (
        "1 of 3 images were made colour, as the network takes them.",
        "1 of 3 images were resized to 8x6 (height x width).",
    )


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": PIXELS},
        {"x_test": PIXELS},
        {"x_test": PIXELS, "y_test": np.full(12, 77)},  # labels that no ensemble knows
        {"x_train": PIXELS[:2], "y_train": np.arange(2), "x_test": PIXELS, "y_test": np.arange(12) % 2},
    ],
)
def test_an_archive_needs_no_labels(tmp_path, arrays):
    np.savez(tmp_path / "some.npz", **arrays)
    reading = load_unlabelled(str(tmp_path / "some.npz"), SHAPE)
    assert np.array_equal(channels_last(reading), PIXELS)
    assert (reading.name, reading.notices) == ("some.npz", ())


def test_an_archive_is_converted_with_notices(tmp_path):
    np.savez(tmp_path / "some.npz", x=PIXELS / 255)
    reading = load_unlabelled(str(tmp_path / "some.npz"), (1, 16, 16), 5)
    assert reading.images.shape == (5, 1, 16, 16)
    assert reading.images.dtype == torch.float32
    made, resized, fewer = reading.notices
    assert "was made grey" in made
    assert "was resized from 8x6 (height x width) to 16x16" in resized
    assert fewer == "5 of 12 images were read, spread evenly."


def test_a_single_file_is_a_set_of_one(paint):
    reading = load_unlabelled(str(paint("one.png") / "one.png"), SHAPE)
    assert np.array_equal(channels_last(reading), PIXELS[:1])
    assert reading.name == "one.png"


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [0]), (3, [0, 4, 8]), (5, [0, 2, 4, 7, 9]), (12, range(12)), (99, range(12))]
)
def test_a_limit_takes_images_from_the_whole_source(tmp_path, paint, limit, expected):
    np.savez(tmp_path / "some.npz", x=PIXELS)
    folder = paint(*(f"{i:02}.png" for i in range(12)))
    for source in (tmp_path / "some.npz", folder):
        reading = load_unlabelled(str(source), SHAPE, limit)
        assert np.array_equal(channels_last(reading), PIXELS[list(expected)])
        assert len(reading.notices) == (limit < 12)


def test_with_a_limit_the_other_files_are_not_opened(paint):
    folder = paint("0.png", "1.png")
    (folder / "1.png").write_bytes(b"no image")
    assert len(load_unlabelled(str(folder), SHAPE, 1).images) == 1
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png"):
        load_unlabelled(str(folder), SHAPE)


def test_a_folder_without_images_is_refused(tmp_path, paint):
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    (tmp_path / "empty" / "deep" / "notes.txt").write_text("one")
    with pytest.raises(DataError, match=r"empty has no images \(\.bmp, .*\): name a folder that holds some"):
        load_unlabelled(str(tmp_path / "empty"), SHAPE)
    folder = paint("train/a.png")
    (folder / "test").mkdir()
    with pytest.raises(DataError, match="test has no images"):
        load_unlabelled(str(folder), SHAPE)


def test_damaged_and_strange_archives_are_refused(tmp_path):
    np.savez(tmp_path / "good.npz", x=PIXELS)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:-50])
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npz").touch()
    np.savez(tmp_path / "none.npz", x=PIXELS[:0])
    np.savez(tmp_path / "other.npz", y=PIXELS)
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    np.savez(tmp_path / "nan.npz", x=np.full((1, 8, 6), np.nan))
    for name, message in {
        "cut.npz": "cut short",
        "text.npz": r"is not an \.npz archive",
        "empty.npz": r"empty \(0 bytes\)",
        "none.npz": "holds 0 images",
        "other.npz": "has no x_test: it holds y",
        "objects.npz": "pickled Python objects",
        "nan.npz": "48 NaN or infinite pixels",
    }.items():
        with pytest.raises(DataError, match=message):
            load_unlabelled(str(tmp_path / name), SHAPE)


def test_channels_that_cannot_be_converted_are_refused(tmp_path, paint):
    np.savez(tmp_path / "two.npz", x=np.zeros((1, 2, 8, 6), np.uint8))
    with pytest.raises(DataError, match="images of 2 channels cannot become the 3 channels"):
        load_unlabelled(str(tmp_path / "two.npz"), SHAPE)
    with pytest.raises(DataError, match="images of 1 channels cannot become the 4 channels"):
        load_unlabelled("digits", (4, 8, 8))
    with pytest.raises(DataError, match=r"image files have 1 or 3 channels, but the network takes 4: give an \.npz"):
        load_unlabelled(str(paint("a.png")), (4, 8, 6))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mnits", "unknown data source or path 'mnits': did you mean 'MNIST'"),
        ("", "unknown data source or path"),
        ("nowhere/some.npz", "the data path nowhere/some.npz does not exist"),
        ("no\0thing.npz", "does not exist"),
        ("x" * 5000 + "/y", "does not exist"),
    ],
)
def test_a_source_that_is_not_there_is_explained(source, message):
    with pytest.raises(StructensError, match=message):
        load_unlabelled(source, SHAPE)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "some.zip").write_bytes(b"x")
    with pytest.raises(DataError, match=r"some\.zip is not an image: known are \.npz"):
        load_unlabelled(str(tmp_path / "some.zip"), SHAPE)


def test_a_limit_below_one_is_refused_before_anything_is_read():
    with pytest.raises(SettingsError, match="limit 0: read 1 image or more, or None for all"):
        load_unlabelled("nowhere", SHAPE, 0)
