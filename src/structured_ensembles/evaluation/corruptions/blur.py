"""Corruptions that mix a pixel with its neighbours."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from structured_ensembles.evaluation.corruptions.draws import Generators, Pixels, angles
from structured_ensembles.evaluation.corruptions.geometry import clipped_zoom, smear


def gaussian_blur(images: Pixels, _: Generators, sigma: float) -> Pixels:
    """A normal kernel of deviation sigma."""
    blurred: Pixels = ndimage.gaussian_filter(images, (0, 0, sigma, sigma), mode="nearest")
    return blurred


def defocus_blur(images: Pixels, _: Generators, radius: float, softness: float) -> Pixels:
    """A lens out of focus: a disk of a radius, its rim softened by a normal kernel of 3x3."""
    line = np.arange(-3, 4)  # holds the largest disk, of radius 1.5, and its rim
    disk = (line**2 + line[:, None] ** 2 <= radius**2).astype(np.float32)
    rim = np.exp(-(np.arange(-1, 2) ** 2) / (2 * softness**2))
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(rim, rim) / rim.sum() ** 2, mode="constant")
    blurred: Pixels = ndimage.convolve(images, kernel[None, None], mode="mirror")
    return blurred


def glass_blur(images: Pixels, draws: Generators, sigma: float, reach: float, passes: float) -> Pixels:
    """Frosted glass: blur, move pixels about, blur.

    Every pixel but those near the edge becomes one of its neighbours, up to ``reach`` above or left of it and less than
    that below or right. The published files were to have neighbours swapped, but a view of an array was assigned
    before it was read, so they hold copies: so do these.
    """
    moved = gaussian_blur(images, draws, sigma)
    for _ in range(int(passes)):
        moved = _move(moved, draws, int(reach))
    return gaussian_blur(moved, draws, sigma)


def _move(images: Pixels, draws: Generators, reach: int) -> Pixels:
    height, width = images.shape[2:]
    rows, columns = np.arange(reach + 1, height - reach + 1), np.arange(reach + 1, width - reach + 1)
    steps = np.stack([one.integers(-reach, reach, (2, len(rows), len(columns))) for one in draws])
    images = images.copy()
    taken = images[np.arange(len(images))[:, None, None], :, rows[:, None] + steps[:, 0], columns + steps[:, 1]]
    images[:, :, rows[:, None], columns] = np.moveaxis(taken, -1, 1)
    return images


def motion_blur(images: Pixels, draws: Generators, radius: float, sigma: float) -> Pixels:
    """A camera that moved, in a direction within 45 degrees of the horizontal."""
    return smear(images, angles(draws, -45, 45), radius, sigma)


def zoom_blur(images: Pixels, _: Generators, steps: float) -> Pixels:
    """A camera that came nearer: the mean of the image and so many enlargements, by 1, 1.01, 1.02, ..."""
    enlarged = [clipped_zoom(images, 1 + step / 100) for step in range(int(steps))]
    return (images + sum(enlarged)) / np.float32(steps + 1)
