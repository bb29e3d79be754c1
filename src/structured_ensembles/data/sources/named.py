"""The well-known sets that torchvision downloads."""

from __future__ import annotations

import http.client
import importlib
import tarfile
import zlib
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from structured_ensembles.data.sources.arrays import to_images, to_labels
from structured_ensembles.data.sources.records import ImageData, Split
from structured_ensembles.errors import DataError

# What torchvision raises when a download breaks off or a file is not what it should be.
_FAILED = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    AssertionError,
    http.client.HTTPException,
    tarfile.TarError,
    zlib.error,
)


def cache_folder() -> Path:
    """Where downloads go unless the user says otherwise."""
    return Path.home() / ".cache" / "structured_ensembles"


def load_named(title: str, root: Path | None = None) -> ImageData:
    """A set by the name of torchvision's class, downloaded when ``root`` does not hold it yet.

    Raises:
        DataError: torchvision is not installed, or the set can be neither found nor downloaded.
    """
    folder = root or cache_folder()
    datasets = _torchvision_datasets(title)
    try:
        train, classes = _part(datasets, title, folder, "train")
        test, _ = _part(datasets, title, folder, "test")
    except _FAILED as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{title} is not in {folder}, or damaged there, and could not be downloaded ({reason}): check the "
            "connection and try again, name a folder (root) that holds torchvision's files, or use an .npz file or a "
            "folder of images"
        ) from error
    return ImageData(title, train, test, classes)


def _torchvision_datasets(title: str) -> ModuleType:
    try:
        return importlib.import_module("torchvision.datasets")
    except ImportError as error:
        raise DataError(f"{title} needs torchvision: pip install 'structured-ensembles[vision]'") from error


def _part(datasets: ModuleType, title: str, folder: Path, part: str) -> tuple[Split, tuple[str, ...]]:
    """The training or test images, and the class names; SVHN spells its arguments differently and names no classes."""
    street_view = title == "SVHN"
    which: dict[str, str | bool] = {"split": part} if street_view else {"train": part == "train"}
    dataset = getattr(datasets, title)(root=str(folder), download=True, **which)
    images, _ = to_images(title, np.asarray(dataset.data))
    labels = to_labels(title, np.asarray(dataset.labels if street_view else dataset.targets))
    return Split(images, labels), tuple(map(str, range(10) if street_view else dataset.classes))


cifar10, cifar100, svhn, mnist, fashionmnist = (
    partial(load_named, title) for title in ("CIFAR10", "CIFAR100", "SVHN", "MNIST", "FashionMNIST")
)
"""Each set, called with the folder where it is kept."""
