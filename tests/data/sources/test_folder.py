from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from structured_ensembles.data.sources import checks, load
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
    assert data.train.images[2:, :, 0, 0].tolist() == [[255, 245, 245], list(RED)]
    assert data.notices == ("1 of 6 images are transparent: they were laid on white.",)


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
    with pytest.raises(DataError, match="differ: only in test: rot"):
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


# --- what people have on their disks ----------------------------------------------------------------------------------


def test_a_file_more_moves_hardly_another_one_into_the_test_set(tmp_path):
    for name, level in (("a", 0), ("b", 100)):
        (tmp_path / name).mkdir()
        for i in range(40):
            Image.new("L", (4, 4), level + i).save(tmp_path / name / f"{i}.png")
    before = {int(image[0, 0, 0]) for image in load(str(tmp_path)).test.images}
    assert len(before) == 16
    Image.new("L", (4, 4), 200).save(tmp_path / "a" / "new.png")
    (tmp_path / "b" / "7.png").unlink()
    after = {int(image[0, 0, 0]) for image in load(str(tmp_path)).test.images}
    assert len(before ^ after) <= 4


@pytest.mark.parametrize(("train", "test"), [("Training", "Testing"), ("train", "validation")])
def test_other_names_of_splits(tmp_path, train, test):
    for split in (train, test):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / split / name / "0.png")
    data = load(str(tmp_path))
    assert (data.classes, len(data.train), len(data.test)) == (("cat", "dog"), 2, 2)


def test_splits_inside_the_classes_are_refused(tmp_path):
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            (tmp_path / name / split).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / name / split / "0.png")
    with pytest.raises(DataError, match="hold train and test folders: put the classes into those"):
        load(str(tmp_path))


@pytest.mark.parametrize("left", ["empty", "no"])
def test_a_class_may_be_without_test_images(folder, left):
    for path in (folder / "test/red").iterdir():
        path.unlink()
    if left == "no":
        (folder / "test/red").rmdir()
    data = load(str(folder))
    assert (data.test.labels == data.classes.index("red")).sum() == 0
    assert "red" in data.notices[-1]


def test_a_test_folder_without_any_image_is_refused(folder):
    for path in folder.glob("test/*/*"):
        path.unlink()
    with pytest.raises(DataError, match=r"the test folder in .* has no images"):
        load(str(folder))


def test_of_many_sizes_the_middle_one_is_taken(tmp_path):
    for name, sizes in (("a", [(20, 30), (22, 31), (24, 29)]), ("b", [(21, 32), (300, 8)])):
        (tmp_path / name).mkdir()
        for i, (height, width) in enumerate(sizes):
            Image.new("L", (width, height)).save(tmp_path / name / f"{i}.png")
    assert load(str(tmp_path)).input_shape == (1, 22, 30)


@pytest.mark.parametrize(("brightest", "white"), [(65535, 255), (200 * 256, 200)])
def test_sixteen_bits_are_cut_with_a_notice(tmp_path, brightest, white):
    deep(tmp_path, brightest, np.uint16)
    data = load(str(tmp_path))
    assert int(data.train.images.max()) == white
    assert "4 of 4 images have 16 bits a pixel: cut to 8." in data.notices


def test_twelve_bits_in_sixteen_are_refused(tmp_path):
    deep(tmp_path, 4095, np.uint16)
    with pytest.raises(DataError, match=r"the brightest one is 5\.9% of white: scale them"):
        load(str(tmp_path))


def test_eight_bits_in_thirty_two_are_eight(tmp_path):
    deep(tmp_path, 250, np.int32, "tif")
    assert int(load(str(tmp_path)).train.images.max()) == 250


def deep(folder, brightest, kind, suffix="png"):
    for name in ("a", "b"):
        (folder / name).mkdir()
        for i in range(2):
            pixels = np.zeros((4, 4), kind)
            pixels[i] = brightest
            Image.fromarray(pixels).save(folder / name / f"{i}.{suffix}")


def test_what_is_drawn_on_nothing_is_seen(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            drawing = np.zeros((4, 4, 4), np.uint8)
            drawing[i, :, 3] = 255
            Image.fromarray(drawing).save(tmp_path / name / f"{i}.png")
    images = load(str(tmp_path)).train.images
    assert images.unique().tolist() == [0, 255]
