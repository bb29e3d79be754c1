"""The published files, CIFAR-10-C and CIFAR-100-C: a folder with a ``<kind>.npy`` per corruption and ``labels.npy``."""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.corruptions.kinds import SEVERITIES

Array: TypeAlias = npt.NDArray[Any]

_LEVELS = len(SEVERITIES)
_BROKEN = (OSError, ValueError, TypeError, EOFError, SyntaxError, OverflowError, tokenize.TokenError)


def read_images(folder: Path, kind: str, labels: tuple[int, ...]) -> Array:
    """The images of one kind, left on the disk until they are used; nothing is unpickled.

    Args:
        folder: Where the file is.
        kind: The corruption.
        labels: The shape of the labels: severities, images of each.

    Returns:
        (5, N, H, W, 3), by severity, uint8.

    Raises:
        DataError: The file is missing, damaged, or holds something else; the message names it.
    """
    path = folder / f"{kind}.npy"
    array = _mapped(path)
    rows = labels[0] * labels[1]
    if array.dtype != np.uint8 or array.ndim != 4 or (len(array), array.shape[3]) != (rows, 3):
        raise DataError(
            f"{path} holds {array.dtype} of shape {array.shape}: expected uint8 of shape ({rows}, height, width, 3), "
            "one image for each label"
        )
    return array.reshape(*labels, *array.shape[1:])


def read_labels(folder: Path) -> Array:
    """(5, N), what the images of each severity show, int64.

    Raises:
        DataError: ``labels.npy`` is missing, damaged, or holds something else.
    """
    path = folder / "labels.npy"
    labels = _mapped(path)
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or len(labels) == 0 or len(labels) % _LEVELS:
        raise DataError(
            f"{path} holds {labels.dtype} of shape {labels.shape}: expected integers of shape (5 N,), such as (50000,)"
        )
    return labels.reshape(_LEVELS, -1).astype(np.int64)


def as_tensor(images: Array) -> Tensor:
    """Images (N, H, W, 3) of a file as (N, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


def _mapped(path: Path) -> Array:
    if not path.is_file():
        raise DataError(f"{path} does not exist: unpack the whole archive and name its folder")
    try:
        return open_memmap(path, mode="r")
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path} is damaged, or no array of numbers ({reason}): fetch it again") from error
