"""Images in a NumPy archive."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from structured_ensembles.data.sources.arrays import scale, to_images, to_labels
from structured_ensembles.data.sources.checks import (
    Array,
    check_file,
    check_gaps,
    check_keys,
    check_known,
    check_length,
    check_two_classes,
)
from structured_ensembles.data.sources.records import ImageData, Split, as_float
from structured_ensembles.errors import DataError

_BRIGHTER = 8
"""By more, one of two sets is stored on another scale."""
KEYS = ("x_train", "y_train", "x_test", "y_test")

# What NumPy and the zip reader raise on damaged files; NotImplementedError is an unknown compression, RuntimeError
# an encrypted entry.
_BROKEN = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
)


def load_npz(path: Path, _: int | None = None) -> ImageData:
    """Images of an ``.npz`` file with x_train, y_train, x_test and y_test.

    Raises:
        DataError: The file is damaged, holds pickled objects or lacks an array, or an array cannot be learned from.
    """
    arrays = read_arrays(path, KEYS)
    labels = {name: to_labels(name, arrays[name]) for name in ("y_train", "y_test")}
    for part in ("train", "test"):
        check_length(f"x_{part}", f"y_{part}", (_length(arrays[f"x_{part}"]), len(labels[f"y_{part}"])))
    check_two_classes("y_train", labels["y_train"])
    check_gaps("y_train", labels["y_train"])
    classes = int(labels["y_train"].max()) + 1
    check_known("y_test", labels["y_test"], classes)
    train, of_train = to_images("x_train", arrays["x_train"])
    test, of_test = to_images("x_test", arrays["x_test"])
    _check_same_scale(arrays["x_train"], arrays["x_test"])
    of_both = _check_brightness(train, test)
    return ImageData(
        path.name,
        Split(train, labels["y_train"]),
        Split(test, labels["y_test"]),
        tuple(str(label) for label in range(classes)),
        of_train + of_test + of_both,
    )


def read_arrays(path: Path, wanted: Sequence[str]) -> dict[str, Array]:
    """The wanted arrays of an archive; never unpickles.

    Raises:
        DataError: The file is missing, empty, damaged or not an archive, lacks an array or holds Python objects.
    """
    check_file(path)
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path} is not an .npz archive, or is cut short: write it with numpy.savez (pickled files are never read)"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            check_keys(path, archive.files, wanted)
            arrays = {name: archive[name] for name in wanted}
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{name} in {path} is not a NumPy array: write the file with numpy.savez")
    return arrays


def keys(path: Path) -> tuple[str, ...]:
    """The names of an archive's arrays; none when it cannot be read, which ``read_arrays`` then explains."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())
    except _BROKEN:
        return ()


def _unreadable(path: Path, error: BaseException) -> DataError:
    if "allow_pickle" in str(error):
        return DataError(
            f"{path} holds pickled Python objects, which are refused because reading them can run code: "
            "store plain arrays of numbers (not dtype=object)"
        )
    return DataError(f"{path} is damaged or cut short ({str(error) or type(error).__name__}): write it again")


def _length(array: Array) -> int:
    return len(array) if array.ndim else 0


def _check_same_scale(train: Array, test: Array) -> None:
    if train.dtype.kind != "f" or test.dtype.kind != "f":
        return
    one, other = scale("x_train", train), scale("x_test", test)
    if one != other:
        raise DataError(f"white is {one} in x_train but {other} in x_test: store both in [0, 1]")


def _check_brightness(train: Tensor, test: Tensor) -> tuple[str, ...]:
    """What should be known of arrays whose white is not white.

    Raises:
        DataError: White is another value in training than in the test images, or integers are 0 and 1 only.
    """
    brightest, other = (float(as_float(images.max())) for images in (train, test))
    if train.dtype == torch.uint8 and int(train.max()) == 1:
        raise DataError("the pixels of x_train are 0 and 1 of 255: store booleans, floats in [0, 1], or 0 and 255")
    if 0 < min(brightest, other) < max(brightest, other) / _BRIGHTER:
        raise DataError(
            f"the brightest pixel is {brightest:.2g} of white in x_train but {other:.2g} in x_test: store both alike"
        )
    if 0 < brightest < 0.5:
        return (f"the brightest pixel of x_train is {255 * brightest:.0f} of 255: attacks take shares of 255.",)
    return ()
