from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from structured_ensembles.data import checks, load
from structured_ensembles.errors import DataError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def paint(path, size=(6, 4), mode="RGB", colour=RED, **options):
    """Write an image of one colour; size is (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], colour).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Two classes of two training images and one test image each."""
    for colour, name in ((RED, "red"), (BLUE, "blue")):
        for part, count in (("train", 2), ("test", 1)):
            for i in range(count):
                paint(tmp_path / "set" / part / name / f"{i}.png", colour=colour)
    return tmp_path / "set"


def test_a_folder_is_read_in_the_order_of_its_names(folder):
    data = load(str(folder))
    assert data.name == "set"
    assert data.classes == ("blue", "red")
    assert data.input_shape == (3, 6, 4)
    assert data.notices == ()
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    assert data.train.images[:, :, 0, 0].tolist() == [list(BLUE), list(BLUE), list(RED), list(RED)]
    assert data.train.images.dtype == torch.uint8


def test_files_of_a_class_are_sorted_and_found_in_subfolders(folder):
    paint(folder / "train/red/a/9.PNG", colour=(9, 0, 0))
    paint(folder / "train/red/10.jpeg", colour=(0, 0, 0))
    reds = load(str(folder)).train.images[2:, 0, 0, 0].tolist()
    assert reds == [255, 255, 0, 9]  # 0.png, 1.png, 10.jpeg, a/9.PNG: "." sorts before "0"


def test_hidden_files_are_skipped_and_other_files_counted(folder):
    (folder / "train/red/.DS_Store").write_bytes(b"x")
    paint(folder / "train/red/.thumbnails/0.png")
    (folder / "train/.cache").mkdir()
    (folder / "train/red/notes.txt").write_text("x")
    data = load(str(folder))
    assert len(data.train) == 4
    assert data.notices == (f"1 files in {folder / 'train'} are not images and were skipped.",)


@pytest.mark.parametrize("name", ["val", "valid", "Test"])
def test_other_names_of_the_test_folder(folder, name):
    (folder / "test").rename(folder / name)
    data = load(str(folder))
    assert len(data.test) == 2
    assert bool(data.notices) == (name != "Test")


def test_a_second_test_folder_is_not_used(folder):
    paint(folder / "val/red/0.png")
    assert load(str(folder)).notices == (f"{folder / 'val'} is not used: {folder / 'test'} is the test set.",)


def test_without_a_split_a_fifth_of_each_class_is_the_test_set(tmp_path):
    for i in range(10):
        paint(tmp_path / "red" / f"{i}.png", colour=(i, 0, 0))
        paint(tmp_path / "train" / f"{i}.png", colour=(0, 0, i))  # a class that happens to have this name
    data = load(str(tmp_path))
    assert data.classes == ("red", "train")
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert len(data.train) == 16
    assert torch.equal(load(str(tmp_path)).test.images, data.test.images)
    assert "a fixed 20% of each class" in data.notices[0]


def test_mixed_sizes_become_the_most_common_one(folder):
    paint(folder / "train/red/big.png", size=(40, 30))
    data = load(str(folder))
    assert data.input_shape == (3, 6, 4)
    assert data.notices == ("1 of 7 images are not 6x4 (height x width): resized.",)


def test_image_size_is_obeyed(folder):
    data = load(str(folder), image_size=5)
    assert data.input_shape == (3, 5, 5)
    assert data.train.images[0, :, 0, 0].tolist() == list(BLUE)
    assert data.notices == ("6 of 6 images are not 5x5 (height x width): resized.",)


def test_grey_files_make_one_channel_and_a_mixture_three(folder):
    for path in folder.rglob("*.png"):
        paint(path, mode="L", colour=77)
    assert load(str(folder)).input_shape == (1, 6, 4)
    paint(folder / "train/red/0.png")
    data = load(str(folder))
    assert data.input_shape == (3, 6, 4)
    assert data.train.images[0, :, 0, 0].tolist() == [77, 77, 77]
    assert data.notices == ("5 of 6 images are grey, the others in colour: all were made colour.",)


def test_deep_greys_are_scaled_and_not_clipped(folder):
    for path in folder.rglob("*.png"):
        Image.fromarray(np.full((6, 4), 128 * 256 + 5, np.uint16)).save(path)
    data = load(str(folder))
    assert data.train.images.unique().tolist() == [128]
    assert data.input_shape == (1, 6, 4)


def test_palette_and_transparency_become_colour(folder):
    paint(folder / "train/red/0.png", mode="RGBA", colour=(255, 0, 0, 10))
    Image.new("RGB", (4, 6), RED).convert("P").save(folder / "train/red/1.png")
    data = load(str(folder))
    assert data.train.images[2:, :, 0, 0].tolist() == [list(RED), list(RED)]
    assert data.notices == ("1 of 6 images are transparent: the transparency was dropped.",)


def test_the_orientation_of_a_photograph_is_applied(folder):
    photograph = Image.new("RGB", (6, 4), BLUE)
    photograph.paste(RED, (0, 0, 3, 4))  # left half
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: the left half is on top
    photograph.save(folder / "train/red/0.jpg", exif=exif, quality=95)
    data = load(str(folder))
    assert data.notices == ()  # 6x4 once turned, as the others
    top, bottom = data.train.images[2][:, 0, 1], data.train.images[2][:, -1, 1]
    assert top[0] > 200 > bottom[0]
    assert bottom[2] > 200 > top[2]


def _truncated(path):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "jpeg")
    path.write_bytes(buffer.getvalue()[:-600])


@pytest.mark.parametrize("damage", [_truncated, lambda path: path.write_bytes(b""), lambda path: path.write_text("no")])
def test_an_unreadable_image_is_named(folder, damage):
    damage(folder / "test/red/bad.jpg")
    with pytest.raises(DataError, match=r"cannot read the image .*test/red/bad\.jpg .*remove it or replace it"):
        load(str(folder))


def test_an_image_of_floats_is_refused(folder):
    Image.new("F", (4, 6), 0.5).save(folder / "train/red/0.tiff")
    with pytest.raises(DataError, match=r"0\.tiff holds pixels of mode F"):
        load(str(folder))


def test_an_empty_class_is_refused(folder):
    (folder / "train/green").mkdir()
    (folder / "train/green/.hidden.png").touch()
    with pytest.raises(DataError, match=r"class folder .*train/green has no images .*fill or remove it"):
        load(str(folder))


def test_classes_that_differ_are_refused(folder):
    (folder / "test/red").rename(folder / "test/rot")
    with pytest.raises(DataError, match="only in training: red; only in test: rot"):
        load(str(folder))


def test_one_class_is_refused(tmp_path):
    paint(tmp_path / "red/0.png")
    with pytest.raises(DataError, match=r"has one class only \(red\)"):
        load(str(tmp_path))


def test_a_class_of_one_image_without_a_split_is_refused(tmp_path):
    for name in ("0.png", "1.png"):
        paint(tmp_path / "red" / name)
    paint(tmp_path / "blue/0.png")
    with pytest.raises(DataError, match="one image only"):
        load(str(tmp_path))


def test_a_folder_without_class_folders_is_refused(tmp_path):
    paint(tmp_path / "0.png")
    with pytest.raises(DataError, match="has no class folders"):
        load(str(tmp_path))


@pytest.mark.parametrize(("gone", "left"), [("train", "test"), ("test", "train")])
def test_half_a_split_is_refused(folder, gone, left):
    (folder / gone).rename(folder.parent / "elsewhere")
    with pytest.raises(DataError, match=f"has class folders only in {left}"):
        load(str(folder))


def test_more_pixels_than_memory_are_refused_before_reading(folder, monkeypatch):
    monkeypatch.setattr(checks, "_memory", lambda: 6 * 6 * 4 * 3 - 1.0)
    with pytest.raises(DataError, match=r"6 images of 6x4 pixels need .* set a smaller image_size"):
        load(str(folder))


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path):
    for name in ("10", "9", "0"):
        for number in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("L", (8, 8), 10 * int(name)).save(tmp_path / name / f"{number}.png")
    assert load(str(tmp_path)).classes == ("0", "9", "10")
