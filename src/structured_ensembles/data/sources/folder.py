"""A folder of image files: ``split/class/*.jpg``, or ``class/*.jpg`` without a split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch

from structured_ensembles.data.sources.checks import check_memory
from structured_ensembles.data.sources.files import SUFFIXES, Look, decode, look
from structured_ensembles.data.sources.records import ImageData, Split
from structured_ensembles.errors import DataError
from structured_ensembles.progress import track

Classes: TypeAlias = Mapping[str, Sequence[Path]]
"""By class name, its image files."""

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")
"""Of folders of splits, in any case; of several test folders the first is taken."""
_TEST_SHARE = 0.2
_MANY_FILES = 2000
_LEAST_BRIGHT = 32
"""Of 255: below, deep greys cut to 8 bits have lost what they show."""


def load_folder(folder: Path, image_size: int | None = None) -> ImageData:
    """Images of a folder, sorted by class name and path; hidden files are skipped.

    Args:
        folder: Holds ``train`` and ``test`` (or ``val``, ``valid``, ...) with a folder for each class, or the class
            folders themselves, of which a fifth of each class, chosen by the names of the files, becomes the test set.
        image_size: Height and width of the images; without it their most common size, or the middle one of many.

    Raises:
        DataError: The folders are not of this form, a class is empty, or an image cannot be read.
    """
    try:
        parts, notices = _parts(folder)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error}") from error
    classes = tuple(parts[0])
    paths = [[path for files in part.values() for path in files] for part in parts]
    looks = [look(path) for path in _watched([path for part in paths for path in part], "looking at images")]
    shape, of_files = _common_shape(looks, image_size)
    check_memory(len(looks), shape)
    train, test = (_read(part, classes, shape) for part in parts)
    if any(seen.deep for seen in looks):
        _check_bright(folder, train)
    return ImageData(folder.resolve().name, train, test, classes, (*notices, *of_files))


def _parts(folder: Path) -> tuple[list[Classes], list[str]]:
    """Training and test files, and what was chosen."""
    inside = {path.name.casefold(): path for path in _folders(folder)}
    splits = {name: inside[name] for name in (*TRAIN_NAMES, *TEST_NAMES) if name in inside and _folders(inside[name])}
    if not splits:
        everything, notices = _classes(folder)
        _check_full(folder, everything)
        share = f"{folder} has no train and test folders: a fixed {_TEST_SHARE:.0%} of each class is the test set."
        return _divided(folder, everything), [share, *notices]
    trains, tests = ([name for name in splits if name in names] for names in (TRAIN_NAMES, TEST_NAMES))
    if not trains or not tests:
        raise DataError(
            f"{folder} has class folders only in {', '.join(splits)}: they are needed in train and in one of "
            f"{', '.join(TEST_NAMES)}"
        )
    train, of_train = _classes(splits[trains[0]])
    _check_full(splits[trains[0]], train)
    test, of_test = _classes(splits[tests[0]])
    _check_known(folder, train, test)
    return [train, test], [*of_train, *of_test, *_unused(folder, splits, tests)]


def _divided(folder: Path, everything: Classes) -> list[Classes]:
    """Training and test files: chosen by their names, so that a file more or less moves hardly another one."""
    train: dict[str, Sequence[Path]] = {}
    test: dict[str, Sequence[Path]] = {}
    for name, files in everything.items():
        if len(files) < 2:
            raise DataError(f"class {name} of {folder} has one image only: at least 2 are needed, one of them to test")
        taken = min(max(round(_TEST_SHARE * len(files)), 1), len(files) - 1)
        chosen = set(sorted(files, key=lambda path: _drawn(path.relative_to(folder)))[:taken])
        train[name] = [path for path in files if path not in chosen]
        test[name] = [path for path in files if path in chosen]
    return [train, test]


def _drawn(path: Path) -> str:
    return hashlib.sha256(path.as_posix().encode()).hexdigest()


def _unused(folder: Path, splits: Mapping[str, Path], tests: Sequence[str]) -> list[str]:
    chosen = [] if tests[0] == "test" else [f"{folder} has no test folder: {splits[tests[0]]} is the test set."]
    return chosen + [f"{splits[name]} is not used: {splits[tests[0]]} is the test set." for name in tests[1:]]


def _classes(folder: Path) -> tuple[Classes, list[str]]:
    """Each class's files, in order."""
    folders = _folders(folder)
    if not folders:
        raise DataError(f"{folder} has no class folders: put the images of each class in a folder of its own")
    classes: dict[str, list[Path]] = {}
    others = 0
    for path in folders:
        files = _visible_files(path)
        classes[path.name] = [file for file in files if file.suffix.lower() in SUFFIXES]
        others += len(files) - len(classes[path.name])
    return classes, [f"{others} files in {folder} are not images and were skipped."] if others else []


def _check_full(folder: Path, classes: Classes) -> None:
    """Refuse a folder to learn from with too few classes, an empty one, or the splits inside the classes."""
    for name, files in classes.items():
        if not files:
            raise DataError(
                f"the class folder {folder / name} has no images ({', '.join(sorted(SUFFIXES))}): fill or remove it"
            )
    if len(classes) < 2:
        raise DataError(f"{folder} has one class only ({', '.join(classes)}): at least 2 are needed")
    inside = [{path.name.casefold() for path in _folders(folder / name)} for name in classes]
    if all({*TRAIN_NAMES, *TEST_NAMES} & names for names in inside):
        raise DataError(f"the class folders of {folder} hold train and test folders: put the classes into those")


def _folders(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(found, key=_place)


def _place(path: Path) -> tuple[bool, int, str]:
    """Numbers first, 10 after 9: as they are ordered where labels are numbers."""
    number = path.name.isdecimal()
    return not number, int(path.name) if number else 0, path.name


def _visible_files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _check_known(folder: Path, train: Classes, test: Classes) -> None:
    """Refuse test images of classes that are not learned; a class without test images is another matter."""
    only_test = sorted(name for name in test if name not in train)
    if only_test:
        raise DataError(f"the class folders of {folder} differ: only in test: {', '.join(only_test[:5])}")
    if not any(test.values()):
        raise DataError(f"the test folder in {folder} has no images: fill it, or move the classes out of the splits")


def _common_shape(looks: Sequence[Look], image_size: int | None) -> tuple[tuple[int, int, int], list[str]]:
    """(C, H, W) of all images, and what has to change for it."""
    sizes = Counter(seen.size for seen in looks)
    size = (image_size, image_size) if image_size else _usual(sizes)
    grey = sum(seen.grey for seen in looks)
    notices = []
    if resized := len(looks) - sizes[size]:
        notices.append(f"{resized} of {len(looks)} images are not {size[0]}x{size[1]} (height x width): resized.")
    if 0 < grey < len(looks):
        notices.append(f"{grey} of {len(looks)} images are grey, the others in colour: all were made colour.")
    if transparent := sum(seen.transparent for seen in looks):
        notices.append(f"{transparent} of {len(looks)} images are transparent: they were laid on white.")
    if deep := sum(seen.deep for seen in looks):
        notices.append(f"{deep} of {len(looks)} images have 16 bits a pixel: cut to 8.")
    return (1 if grey == len(looks) else 3, *size), notices


def _usual(sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    """The most common size, the larger of two: it loses no detail. Where most images have others, the middle one."""
    usual = max(sizes, key=lambda one: (sizes[one], one))
    if 2 * sizes[usual] >= sizes.total():
        return usual
    height, width = (sorted(side)[sizes.total() // 2] for side in zip(*sizes.elements(), strict=True))
    return height, width


def _check_bright(folder: Path, split: Split) -> None:
    """Refuse pictures of 10 or 12 bits in files of 16: cut to 8, hardly anything is left of them."""
    if (brightest := int(split.images.max())) < _LEAST_BRIGHT:
        raise DataError(
            f"the images of {folder} have 16 bits a pixel, and the brightest one is {brightest / 255:.1%} of white: "
            "scale them to the whole range, or save them with 8 bits"
        )


def _read(part: Classes, classes: Sequence[str], shape: tuple[int, int, int]) -> Split:
    """Decode every file into one tensor, class after class."""
    paths = [path for name in classes for path in part.get(name, ())]
    images = torch.empty((len(paths), *shape), dtype=torch.uint8)
    for i, path in enumerate(_watched(paths, "reading images")):
        images[i] = decode(path, shape[0], shape[1:])
    counts = torch.tensor([len(part.get(name, ())) for name in classes])
    return Split(images, torch.arange(len(classes)).repeat_interleave(counts))


def _watched(paths: Sequence[Path], doing: str) -> Iterable[Path]:
    """The paths, with a progress bar when there are many."""
    return track(paths, doing) if len(paths) >= _MANY_FILES else paths
