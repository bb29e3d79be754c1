"""Smearing and enlarging, which several corruptions are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from structured_ensembles.evaluation.corruptions.draws import Pixels


def smear(images: Pixels, angles: Sequence[float], radius: float, sigma: float) -> Pixels:
    """Blur each image along one direction, to one side, as ImageMagick's motion blur does.

    Args:
        images: (N, C, H, W); the pixels at the edge continue outside of it.
        angles: N, in degrees; at 0 a pixel takes from its right, at 90 from below.
        radius: Of 2 radius + 1 pixels along the line.
        sigma: Their weights fall like a normal density of this deviation.
    """
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2), dtype=np.float32)
    weights /= weights.sum()
    reach = len(weights) - 1
    padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    return np.stack([_smear(image, angle, weights) for image, angle in zip(padded, angles, strict=True)])


def _smear(padded: Pixels, angle: float, weights: Pixels) -> Pixels:
    reach, direction = len(weights) - 1, math.radians(angle)
    height, width = padded.shape[1] - 2 * reach, padded.shape[2] - 2 * reach
    smeared = np.zeros((padded.shape[0], height, width), dtype=np.float32)
    for step, weight in enumerate(weights):
        top = reach + math.ceil(step * math.sin(direction) - 0.5)
        left = reach + math.ceil(step * math.cos(direction) - 0.5)
        smeared += weight * padded[:, top : top + height, left : left + width]
    return smeared


def clipped_zoom(images: Pixels, factor: float) -> Pixels:
    """Enlarge the middle of each image (N, C, H, W) by linear interpolation, and keep the size."""
    height, width = images.shape[2:]
    return _zoom_matrix(height, factor) @ images @ _zoom_matrix(width, factor).T


def _zoom_matrix(side: int, factor: float) -> Pixels:
    """(side, side), what every new pixel of a line takes from the old ones.

    The line is cropped to side / factor, rounded up, stretched until the outermost pixels' centres are outermost
    again, and cropped to its old length.
    """
    cropped = math.ceil(side / factor)
    stretched = round(cropped * factor)
    trim = (stretched - side) // 2
    new = (trim + np.arange(side)) * (cropped - 1) / max(stretched - 1, 1)
    old = np.arange(cropped)
    columns = np.stack([np.interp(new, old, unit) for unit in np.eye(cropped)], axis=1)
    matrix = np.zeros((side, side), dtype=np.float32)
    top = (side - cropped) // 2
    matrix[:, top : top + cropped] = columns
    return matrix
