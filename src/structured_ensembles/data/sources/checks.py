"""What data must be before anything is learned from them: one function a check, each raises DataError."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from structured_ensembles.data.sources.records import ImageData, Split
from structured_ensembles.errors import DataError

Array: TypeAlias = npt.NDArray[Any]


def check_file(path: Path) -> None:
    """The file exists and holds something."""
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)")


def check_keys(path: Path, found: Iterable[str], wanted: Iterable[str]) -> None:
    """The archive holds every wanted array."""
    there = sorted(found)
    missing = [key for key in wanted if key not in there]
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}: it holds {', '.join(there) or 'nothing'}")


def check_images_shape(name: str, array: Array) -> None:
    """The array is (N, H, W), (N, C, H, W) or (N, H, W, C), with no dimension of 0."""
    if array.ndim not in {3, 4}:
        raise DataError(
            f"{name} has shape {array.shape}: images must be (N, H, W), (N, C, H, W) or (N, H, W, C); reshape them"
        )
    if len(array) == 0:
        raise DataError(f"{name} holds 0 images (shape {array.shape})")
    if array.size == 0:
        raise DataError(f"{name} has shape {array.shape}: its images have no pixels")


def check_finite(name: str, array: Array) -> None:
    """No pixel is NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        where = ", ".join(str(int(i)) for i in np.unravel_index(bad[0], array.shape))
        raise DataError(
            f"{name} holds {len(bad)} NaN or infinite pixels, the first at {name}[{where}]; mend or drop them"
        )


def check_label_type(name: str, array: Array) -> None:
    """Labels are stored as integers (or booleans), as (N,) or (N, 1)."""
    if array.ndim == 2 and array.shape[1] > 1:
        raise DataError(f"{name} has shape {array.shape}: labels must be (N,); of one-hot rows take argmax(axis=1)")
    if array.ndim == 0 or array.size != len(array):
        raise DataError(f"{name} has shape {array.shape}: labels must be (N,) or (N, 1)")
    if array.dtype.kind in "US":
        raise DataError(
            f"{name} holds text: number the classes from 0 on, as np.unique({name}, return_inverse=True) does"
        )
    if array.dtype.kind not in "iub":
        raise DataError(f'{name} holds {array.dtype}: labels must be integers; store {name}.astype("int64")')


def check_label_range(name: str, array: Array) -> None:
    """No label is negative or too large for int64."""
    if array.min() < 0:
        first = int(np.flatnonzero(array.ravel() < 0)[0])
        raise DataError(f"{name} holds the negative label {array.ravel()[first]} at index {first}: labels start at 0")
    if int(array.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{name} holds the label {array.max()}: labels go from 0 to the number of classes less 1")


def check_length(images: str, labels: str, counts: tuple[int, int]) -> None:
    """There are as many labels as images."""
    if counts[0] != counts[1]:
        raise DataError(f"{images} holds {counts[0]} images, but {labels} {counts[1]} labels: one each is needed")


def check_two_classes(name: str, labels: Tensor) -> None:
    """There is something to tell apart."""
    found = torch.unique(labels).tolist()
    if len(found) < 2:
        raise DataError(f"{name} holds one class only (label {found[0]}): at least 2 are needed")


def check_gaps(name: str, labels: Tensor) -> None:
    """Every label from 0 to the largest has an image."""
    found = torch.unique(labels).tolist()
    gaps = [i for i, label in enumerate(found) if label != i]
    if gaps:
        raise DataError(
            f"{name} goes from {found[0]} to {found[-1]}, but no image has label {gaps[0]}: "
            f"number the {len(found)} classes 0 to {len(found) - 1}, in the test set too"
        )


def check_known(name: str, labels: Tensor, classes: int) -> None:
    """Every label is one of the classes."""
    wrong = ((labels < 0) | (labels >= classes)).nonzero().flatten().tolist()
    if wrong:
        raise DataError(
            f"{name} holds the label {int(labels[wrong[0]])} at index {wrong[0]}: "
            f"the {classes} training classes are 0 to {classes - 1}"
        )


def check_same_shape(train: Split, test: Split) -> None:
    """Training and test images have the same channels, height and width."""
    one, other = tuple(train.images.shape[1:]), tuple(test.images.shape[1:])
    if one != other:
        raise DataError(
            f"training images are {one} (channels, height, width), but test images {other}: they must agree"
        )


def check_memory(images: int, shape: tuple[int, int, int]) -> None:
    """The machine can hold that many images of that shape, a byte a pixel."""
    needed, there = images * shape[0] * shape[1] * shape[2], _memory()
    if needed > there:
        raise DataError(
            f"{images:,} images of {shape[1]}x{shape[2]} pixels need {needed / 2**30:.1f} GiB, more than this "
            f"machine's {there / 2**30:.1f} GiB of memory: set a smaller image_size"
        )


def _memory() -> float:
    """Bytes of physical memory; without a limit where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def check_data(data: ImageData) -> None:
    """Everything that training relies on, whatever the source."""
    for name, split in (("training", data.train), ("test", data.test)):
        if split.images.ndim != 4 or split.images.numel() == 0:
            raise DataError(f"the {name} set of {data.name} has no images (shape {tuple(split.images.shape)})")
        check_length(f"the {name} set", "it has", (len(split.images), len(split.labels)))
        check_known(f"the {name} set", split.labels, len(data.classes))
    check_two_classes("the training set", data.train.labels)
    check_gaps("the training set", data.train.labels)
    check_same_shape(data.train, data.test)
