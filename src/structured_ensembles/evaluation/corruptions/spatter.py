"""Drops on the lens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from structured_ensembles.evaluation.corruptions.draws import Generators, Pixels, normal

_WATER = np.array([175, 238, 238], dtype=np.float32)[:, None, None] / 255  # pale turquoise
_MUD = np.array([63, 42, 20], dtype=np.float32)[:, None, None] / 255
_LIGHT = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
"""An emboss: light that comes from a corner."""


def spatter(
    images: Pixels,
    draws: Generators,
    mean: float,
    deviation: float,
    sigma: float,
    threshold: float,
    strength: float,
    muddy: float,
) -> Pixels:
    """Drops, where smooth noise is high: of water (severity 1 to 3), or of mud (4 and 5). Takes 3 channels.

    The rims of drops of water are found by erosion, not by the edge detector that CIFAR-10-C was made with.

    Args:
        images: (N, 3, H, W).
        draws: One for each image.
        mean: Of the noise.
        deviation: Of the noise.
        sigma: How far the noise is blurred.
        threshold: Above which there is a drop.
        strength: How bright water is, how far mud is blurred.
        muddy: 0 for water, 1 for mud.
    """
    noise = mean + deviation * normal(draws, images.shape[2:])
    liquid = ndimage.gaussian_filter(noise, (0, sigma, sigma), mode="nearest")
    liquid = np.where(liquid < threshold, 0, liquid)
    if muddy:
        return _mud(images, liquid > threshold, strength)
    water = np.stack([_sparkle(one) for one in liquid])[:, None]
    return images + strength * water * _WATER


def _mud(images: Pixels, drops: npt.NDArray[np.bool_], sigma: float) -> Pixels:
    covered: Pixels = ndimage.gaussian_filter(drops.astype(np.float32), (0, sigma, sigma), mode="nearest")[:, None]
    covered = np.where(covered < 0.8, 0, covered)
    return images * (1 - covered) + covered * _MUD


def _sparkle(liquid: Pixels) -> Pixels:
    """How brightly each pixel (H, W) of one image's drops shines, at most 1."""
    drops = liquid > 0
    rims = drops & ~ndimage.binary_erosion(drops, np.ones((3, 3)), border_value=1)
    if not rims.any():
        return np.zeros_like(liquid)
    distance = np.minimum(ndimage.distance_transform_edt(~rims), 20)
    relief = _equalised(ndimage.uniform_filter(distance, 3, mode="mirror").astype(np.uint8))
    lit = ndimage.correlate(relief.astype(np.float32), _LIGHT, mode="mirror").clip(0, 255)
    shine: Pixels = liquid * ndimage.uniform_filter(lit, 3, mode="mirror")
    return shine / max(float(shine.max()), float(np.finfo(np.float32).tiny))


def _equalised(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Levels (H, W) spread over 0 to 255 by their rank; the lowest becomes 0."""
    counts = np.bincount(grey.ravel(), minlength=256)
    lowest = counts[grey.min()]
    if lowest == grey.size:
        return grey
    above = (counts.cumsum() - lowest).clip(0)
    levels: npt.NDArray[np.uint8] = np.rint(above * 255 / (grey.size - lowest)).astype(np.uint8)
    return levels[grey]
