"""Arrays of other programs, brought to the one form that the rest of the library knows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from structured_ensembles.data.sources.checks import (
    Array,
    check_finite,
    check_images_shape,
    check_label_range,
    check_label_type,
)
from structured_ensembles.errors import DataError

_MOST_CHANNELS = 4
# Floats of a byte image reach far beyond 2; what ends just above 1 is a [0, 1] image that something has overshot.
_OVERSHOT = 2.0


def to_images(name: str, array: Array) -> tuple[Tensor, tuple[str, ...]]:
    """Images as (N, C, H, W), uint8 or float32 in [0, 1], and what had to be guessed.

    Args:
        name: What messages call the array.
        array: (N, H, W), (N, C, H, W) or (N, H, W, C) of any real type.

    Raises:
        DataError: The shape is ambiguous, or the pixels are not finite or out of range.
    """
    check_images_shape(name, array)
    pixels, notices = _pixels(name, array)
    return torch.from_numpy(np.ascontiguousarray(_channels_first(name, pixels))), notices


def to_labels(name: str, array: Array) -> Tensor:
    """Labels as (N,) int64, of (N,) or (N, 1) integers that are not negative."""
    check_label_type(name, array)
    if len(array) == 0:
        raise DataError(f"{name} holds 0 labels")
    check_label_range(name, array)
    return torch.from_numpy(array.reshape(-1).astype(np.int64))


def scale(name: str, array: Array) -> int:
    """What white is in an array of floats: 1 or 255."""
    check_finite(name, array)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 255 or 1 < high <= _OVERSHOT:
        raise DataError(
            f"the pixels of {name} go from {low:g} to {high:g}: floats must be in [0, 1], or in [0, 255] like bytes; "
            "store them before normalisation"
        )
    return 1 if high <= 1 else 255


def _channels_first(name: str, array: Array) -> Array:
    if array.ndim == 3:
        return array[:, None]
    first, last = array.shape[1] <= _MOST_CHANNELS, array.shape[3] <= _MOST_CHANNELS
    if first == last:
        which = "both the second and the last" if first else "neither the second nor the last"
        raise DataError(
            f"{name} has shape {array.shape}: {which} dimension can be the channels (1 to {_MOST_CHANNELS}); "
            "store (N, C, H, W) with an H and W above that, or pass a DataLoader in Python"
        )
    return array if first else array.transpose(0, 3, 1, 2)


def _pixels(name: str, array: Array) -> tuple[Array, tuple[str, ...]]:
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array, ()
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255), (f"{name} is boolean: True was read as white.",)
    if kind in "iu":
        return _integers(name, array)
    if kind == "f":
        return _floats(name, array)
    raise DataError(f"{name} holds {array.dtype}: pixels must be uint8, or floats in [0, 1]")


def _integers(name: str, array: Array) -> tuple[Array, tuple[str, ...]]:
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise DataError(
            f"the pixels of {name} ({array.dtype}) go from {low} to {high}: integers must be 0 to 255; "
            "divide by the value of white to store floats in [0, 1]"
        )
    return array.astype(np.uint8), (f"{name} holds {array.dtype}: read as grey levels 0 to 255.",)


def _floats(name: str, array: Array) -> tuple[Array, tuple[str, ...]]:
    if scale(name, array) == 1:
        return array.astype(np.float32, copy=False), ()
    return array.astype(np.float32) / np.float32(255), (f"{name} holds floats up to {array.max():g}: divided by 255.",)
