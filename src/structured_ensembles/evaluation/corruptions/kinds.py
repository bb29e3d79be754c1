"""The common corruptions by name, and what applies one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from structured_ensembles.errors import DataError, SettingsError, unknown
from structured_ensembles.evaluation.corruptions import blur, digital, noise, spatter, weather
from structured_ensembles.evaluation.corruptions.constants import CONSTANTS
from structured_ensembles.evaluation.corruptions.draws import Pixels, generators

NAME = "CIFAR-10-C-like"
"""What a measurement on these corruptions is called: the constants are CIFAR-10-C's, the images are not."""

_FUNCTIONS: Mapping[str, Callable[..., Pixels]] = {
    name: function
    for module in (blur, digital, noise, spatter, weather)
    for name, function in vars(module).items()
    if name in CONSTANTS
}

KINDS = tuple(CONSTANTS)
"""All 19."""

STANDARD = KINDS[:15]
"""Those whose mean the literature reports."""

SEVERITIES = (1, 2, 3, 4, 5)

_COLOURED = {"frost", "spatter", "saturate"}
"""What has a colour of its own, or works on colour."""

_SMALLEST, _CHUNK = 8, 256


def corrupt(
    images: npt.NDArray[np.uint8], kind: str, severity: int, seed: int = 0, first: int = 0
) -> npt.NDArray[np.uint8]:
    """Corrupt images as those of CIFAR-10-C are (Hendrycks and Dietterich 2019).

    An image becomes the same whatever else is in the batch: only its own index counts. Grey images are made coloured,
    and grey again, where a corruption is about colour. Lengths are pixels of an image of any size, as in CIFAR-10-C,
    but for the elastic transform, whose lengths are shares of the side there too. Results are rounded, not cut off.

    Args:
        images: (N, C, H, W) of 1 or 3 channels, of 8x8 pixels or more.
        kind: One of `KINDS`.
        severity: 1 to 5.
        seed: At least 0.
        first: The index of the first image in its set.

    Raises:
        SettingsError: There is no such kind or severity, or the seed is negative.
        DataError: The images are something else.
    """
    check_choices([kind], [severity], seed)
    _check_images(images)
    starts = range(0, len(images), _CHUNK)
    parts = [_corrupt(images[start : start + _CHUNK], kind, severity, seed, first + start) for start in starts]
    return np.concatenate(parts)


def check_choices(kinds: Sequence[str], severities: Sequence[int], seed: int = 0) -> None:
    """Every kind and severity exists, there is one of each at least, and the seed can be used."""
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("corruption", kind, KINDS)
    wrong = [severity for severity in severities if severity not in SEVERITIES]
    if wrong:
        raise SettingsError(f"severity {wrong[0]}: severities go from 1 to 5")
    if not (kinds and severities):
        raise SettingsError("no corruption was chosen: name one kind and one severity at least")
    if seed < 0:
        raise SettingsError(f"seed {seed} is negative: use a whole number from 0 on")


def _check_images(images: npt.NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise DataError(
            f"images of shape {images.shape} and type {images.dtype} cannot be corrupted: pass (N, C, H, W), uint8, "
            "with 1 or 3 channels and one image at least"
        )
    if min(images.shape[2:]) < _SMALLEST:
        raise DataError(f"images of {images.shape[2]}x{images.shape[3]} pixels: corruptions need 8x8 or more")


def _corrupt(images: npt.NDArray[np.uint8], kind: str, severity: int, seed: int, first: int) -> npt.NDArray[np.uint8]:
    draws = generators(seed, (KINDS.index(kind), severity), range(first, first + len(images)))
    pixels = images.astype(np.float32) / 255
    painted = kind in _COLOURED and images.shape[1] == 1
    changed = _FUNCTIONS[kind](pixels.repeat(3, axis=1) if painted else pixels, draws, *CONSTANTS[kind][severity - 1])
    changed = weather.grey(changed.clip(0, 1)) if painted else changed.clip(0, 1)
    return np.rint(changed * 255).astype(np.uint8)
