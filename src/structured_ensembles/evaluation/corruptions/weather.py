"""Corruptions by what is in the air or on the lens. S is the power of two that holds an image's larger side."""

from __future__ import annotations

import numpy as np

from structured_ensembles.evaluation.corruptions.draws import Generators, Pixels, angles, normal, uniform
from structured_ensembles.evaluation.corruptions.geometry import clipped_zoom, smear

GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""What red, green and blue add to brightness (ITU-R BT.601)."""

_ICE = np.array([0.82, 0.92, 1], dtype=np.float32)[:, None, None]


def snow(images: Pixels, draws: Generators, *levels: float) -> Pixels:
    """Flakes that fall, and an image that pales: what is brightest of some noise, enlarged and smeared downwards.

    Args:
        images: (N, C, H, W).
        draws: One for each image.
        levels: Mean and deviation of the noise, its enlargement, the threshold of a flake, radius and sigma of the
            smearing, and how much of the image is kept.
    """
    mean, deviation, zoom, threshold, radius, sigma, kept = levels
    flakes = clipped_zoom(mean + deviation * normal(draws, (1, *images.shape[2:])), zoom)
    flakes = np.where(flakes < threshold, 0, flakes.clip(0, 1))
    flakes = smear(flakes, angles(draws, -135, -45), radius, sigma)
    pale: Pixels = np.maximum(images, 1.5 * grey(images) + 0.5)
    return kept * images + (1 - kept) * pale + flakes + flakes[:, :, ::-1, ::-1]


def grey(images: Pixels) -> Pixels:
    """The brightness (N, 1, H, W) of grey or coloured images."""
    if images.shape[1] == 1:
        return images
    brightness: Pixels = np.einsum("nchw,c->nhw", images, GREY)
    return brightness[:, None]


def frost(images: Pixels, draws: Generators, kept: float, ice: float) -> Pixels:
    """Ice on the window, added to a darkened image of 3 channels.

    CIFAR-10-C adds crops of photographs of frost; this adds a texture made by computation, bright veins on a cloudy
    film in a pale blue, so numbers are not comparable with those of the published files.
    """
    film, branches = (_cloud(images, draws, decay) for decay in (1.5, 1.35))
    veins = 1 - np.abs(2 * branches - 1)
    return kept * images + ice * _ICE * (0.5 * film + 0.5 * veins**3)


def fog(images: Pixels, draws: Generators, thickness: float, decay: float) -> Pixels:
    """A plasma cloud is added; then the image is darkened so that what was brightest could be so still."""
    brightest: Pixels = images.max(axis=(1, 2, 3), keepdims=True)
    return (images + thickness * _cloud(images, draws, decay)) * brightest / (brightest + thickness)


def _cloud(images: Pixels, draws: Generators, decay: float) -> Pixels:
    """A plasma for each image: (N, 1, H, W)."""
    height, width = images.shape[2:]
    side = 1 << (max(height, width) - 1).bit_length()
    return plasma(2 * uniform(draws, (side, side)) - 1, decay)[:, None, :height, :width]


def plasma(noise: Pixels, decay: float) -> Pixels:
    """Clouds by midpoint displacement (diamond-square), periodic, stretched to go from 0 to 1.

    Args:
        noise: (N, S, S), from -1 to 1, how far each point is moved from the mean of its four neighbours.
        decay: By the square of this the displacement shrinks at each halving: the larger, the smoother.
    """
    heights = np.zeros_like(noise)
    step, amplitude = noise.shape[1], 1.0
    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=2)
        middles = (pairs + np.roll(pairs, -1, axis=1)) / 4 + amplitude * noise[:, half::step, half::step]
        across = pairs + middles + np.roll(middles, 1, axis=1)
        down = corners + np.roll(corners, -1, axis=1) + middles + np.roll(middles, 1, axis=2)
        heights[:, half::step, half::step] = middles
        heights[:, ::step, half::step] = across / 4 + amplitude * noise[:, ::step, half::step]
        heights[:, half::step, ::step] = down / 4 + amplitude * noise[:, half::step, ::step]
        step, amplitude = half, amplitude / decay**2
    lowest: Pixels = heights.min(axis=(1, 2), keepdims=True)
    highest: Pixels = heights.max(axis=(1, 2), keepdims=True)
    return (heights - lowest) / np.maximum(highest - lowest, np.finfo(np.float32).tiny)
