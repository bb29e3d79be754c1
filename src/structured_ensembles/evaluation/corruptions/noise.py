"""Corruptions that change every pixel on its own."""

from __future__ import annotations

import numpy as np

from structured_ensembles.evaluation.corruptions.draws import Generators, Pixels, normal, uniform


def gaussian_noise(images: Pixels, draws: Generators, deviation: float) -> Pixels:
    """Normal noise, as in low light."""
    return images + deviation * normal(draws, images.shape[1:])


def shot_noise(images: Pixels, draws: Generators, photons: float) -> Pixels:
    """Poisson noise: light comes in quanta, so many of them for white."""
    counts = [one.poisson(image * photons) for one, image in zip(draws, images, strict=True)]
    return np.stack(counts).astype(np.float32) / np.float32(photons)


def impulse_noise(images: Pixels, draws: Generators, share: float) -> Pixels:
    """Salt and pepper: a share of the values, each channel on its own, becomes black or white."""
    chance = uniform(draws, images.shape[1:])
    salt = (chance < share / 2).astype(np.float32)
    return np.where(chance < share, salt, images)


def speckle_noise(images: Pixels, draws: Generators, deviation: float) -> Pixels:
    """Normal noise that grows with the pixel."""
    return images * (1 + deviation * normal(draws, images.shape[1:]))
