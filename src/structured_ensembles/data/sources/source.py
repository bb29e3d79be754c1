"""One name for all data: what a user writes after ``--data``."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path

import torch

from structured_ensembles.data.sources.checks import check_data
from structured_ensembles.data.sources.records import ImageData, Split
from structured_ensembles.data.sources.resizing import resize
from structured_ensembles.errors import DataError, SettingsError, StructensError, unknown
from structured_ensembles.options.catalogue import FORMATS, SOURCES


def load(source: str, *, image_size: int | None = None, root: str | None = None) -> ImageData:
    """Read images and labels.

    A name wins over a file of that name in the current folder, which ``./name`` reaches.

    Args:
        source: ``"digits"``; the path of an ``.npz`` file with x_train, y_train, x_test and y_test; that of a folder
            ``split/class/*.jpg``; or CIFAR10, CIFAR100, SVHN, MNIST or FashionMNIST, in any case of letters.
        image_size: Height and width, in pixels, to which all images are stretched; without it they stay as they are,
            and those of a folder take their most common size.
        root: Where the named sets are kept, and downloaded to; ``~/.cache/structured_ensembles`` without it.

    Raises:
        DataError: The data cannot be read, or cannot be learned from.
        SettingsError: ``source`` is neither a name nor a path, or ``image_size`` is below 1.
    """
    if image_size is not None and image_size < 1:
        raise SettingsError(f"image_size is {image_size}: it must be 1 pixel or more")
    data = _read(str(source), image_size, Path(root).expanduser() if root else None)
    data = _resized(data, image_size) if image_size else data
    check_data(data)
    return _with_missing_classes_noticed(data)


def _read(source: str, image_size: int | None, root: Path | None) -> ImageData:
    if (name := named(source)) is not None:
        known: ImageData = SOURCES[name](root)
        return known
    path = existing(source)
    if path is None:
        raise _nowhere(source)
    kind = "folder" if path.is_dir() else path.suffix.lower()
    if kind not in FORMATS:
        raise DataError(f"{path} is neither a folder nor an .npz file: unpack archives and name the folder")
    found: ImageData = FORMATS[kind](path, image_size)
    return found


def named(source: str) -> str | None:
    """The name of a set that is meant, in any case of letters."""
    return next((name for name in SOURCES if name.lower() == source.lower()), None)


def existing(source: str) -> Path | None:
    """The file or folder of that name, if there is one."""
    try:
        path = Path(source).expanduser()
        return path if source.strip() and path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _nowhere(source: str) -> StructensError:
    if not (Path(source).suffix or source.startswith(("~", ".")) or os.sep in source or "/" in source):
        return unknown("data source or path", source, SOURCES)
    return DataError(f"the data path {source} does not exist{_neighbour(source)}")


def _neighbour(source: str) -> str:
    """A hint at what the folder holds instead."""
    path = Path(source)
    try:
        near = difflib.get_close_matches(path.name, [one.name for one in path.parent.iterdir()], n=1)
    except (OSError, ValueError):
        return ""
    return f": did you mean {path.parent / near[0]}?" if near else ""


def _resized(data: ImageData, side: int) -> ImageData:
    height, width = data.train.images.shape[2:]
    if (height, width) == (side, side):
        return data
    train, test = (Split(resize(split.images, (side, side)), split.labels) for split in (data.train, data.test))
    notice = f"All images were resized from {height}x{width} (height x width) to {side}x{side}."
    return replace(data, train=train, test=test, notices=(*data.notices, notice))


def _with_missing_classes_noticed(data: ImageData) -> ImageData:
    there = set(torch.unique(data.test.labels).tolist())
    missing = [name for label, name in enumerate(data.classes) if label not in there]
    if not missing:
        return data
    notice = f"The test set has no image of class {', '.join(missing[:5])}{' and others' if missing[5:] else ''}."
    return replace(data, notices=(*data.notices, notice))
