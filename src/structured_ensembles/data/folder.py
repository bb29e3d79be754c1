"""A folder of image files: ``split/class/*.jpg``, or ``class/*.jpg`` without a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from rich.console import Console
from rich.progress import track

from structured_ensembles.data.checks import check_memory
from structured_ensembles.data.files import SUFFIXES, Look, decode, look
from structured_ensembles.data.records import ImageData, Split, divide
from structured_ensembles.errors import DataError

Classes: TypeAlias = Mapping[str, Sequence[Path]]
"""By class name, its image files."""

_TEST_NAMES = ("test", "val", "valid")
_TEST_SHARE = 0.2
_SEED = 0
_MANY_FILES = 2000


def load_folder(folder: Path, image_size: int | None = None) -> ImageData:
    """Images of a folder, sorted by class name and path; hidden files are skipped.

    Args:
        folder: Holds ``train`` and ``test`` (or ``val``, ``valid``) with a folder for each class, or the class folders
            themselves, of which a fixed fifth of each class then becomes the test set.
        image_size: Height and width of the images; without it their most common size.

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
    splits = [_read(part, classes, shape) for part in parts]
    train, test = splits if len(splits) == 2 else divide(splits[0], _TEST_SHARE, _SEED)
    return ImageData(folder.resolve().name, train, test, classes, (*notices, *of_files))


def _parts(folder: Path) -> tuple[list[Classes], list[str]]:
    """Training and test files, or all files when there is no split, and what was chosen."""
    inside = {path.name.casefold(): path for path in _folders(folder)}
    splits = {name: inside[name] for name in ("train", *_TEST_NAMES) if name in inside and _folders(inside[name])}
    if not splits:
        everything, notices = _classes(folder)
        share = f"{folder} has no train and test folders: a fixed {_TEST_SHARE:.0%} of each class is the test set."
        return [everything], [share, *notices]
    tests = [name for name in splits if name != "train"]
    if "train" not in splits or not tests:
        raise DataError(
            f"{folder} has class folders only in {', '.join(splits)}: they are needed in train and in one of "
            f"{', '.join(_TEST_NAMES)}"
        )
    train, of_train = _classes(splits["train"])
    test, of_test = _classes(splits[tests[0]])
    _check_same_classes(folder, train, test)
    return [train, test], [*of_train, *of_test, *_unused(folder, splits, tests)]


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
        if not classes[path.name]:
            raise DataError(f"the class folder {path} has no images ({', '.join(sorted(SUFFIXES))}): fill or remove it")
    if len(classes) < 2:
        raise DataError(f"{folder} has one class only ({folders[0].name}): at least 2 are needed")
    return classes, [f"{others} files in {folder} are not images and were skipped."] if others else []


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


def _check_same_classes(folder: Path, train: Classes, test: Classes) -> None:
    only_train, only_test = sorted(set(train) - set(test)), sorted(set(test) - set(train))
    if only_train or only_test:
        raise DataError(
            f"the class folders of {folder} differ: only in training: {', '.join(only_train[:5]) or 'none'}; "
            f"only in test: {', '.join(only_test[:5]) or 'none'}"
        )


def _common_shape(looks: Sequence[Look], image_size: int | None) -> tuple[tuple[int, int, int], list[str]]:
    """(C, H, W) of all images, and what has to change for it."""
    sizes = Counter(seen.size for seen in looks)
    # Of two sizes equally common the larger one: it loses no detail.
    size = (image_size, image_size) if image_size else max(sizes, key=lambda one: (sizes[one], one))
    grey = sum(seen.grey for seen in looks)
    notices = []
    if resized := len(looks) - sizes[size]:
        notices.append(f"{resized} of {len(looks)} images are not {size[0]}x{size[1]} (height x width): resized.")
    if 0 < grey < len(looks):
        notices.append(f"{grey} of {len(looks)} images are grey, the others in colour: all were made colour.")
    if transparent := sum(seen.transparent for seen in looks):
        notices.append(f"{transparent} of {len(looks)} images are transparent: the transparency was dropped.")
    return (1 if grey == len(looks) else 3, *size), notices


def _read(part: Classes, classes: Sequence[str], shape: tuple[int, int, int]) -> Split:
    """Decode every file into one tensor, class after class."""
    paths = [path for name in classes for path in part[name]]
    images = torch.empty((len(paths), *shape), dtype=torch.uint8)
    for i, path in enumerate(_watched(paths, "reading images")):
        images[i] = decode(path, shape[0], shape[1:])
    counts = torch.tensor([len(part[name]) for name in classes])
    return Split(images, torch.arange(len(classes)).repeat_interleave(counts))


def _watched(paths: Sequence[Path], doing: str) -> Iterable[Path]:
    """The paths, with a progress bar on a terminal when there are many."""
    console = Console(stderr=True)
    if len(paths) < _MANY_FILES or not console.is_terminal:
        return paths
    return track(paths, doing, console=console, transient=True)
