"""Randomness of corruptions: every image has a generator of its own, so that a batch never matters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.floating[Any]]
"""(N, C, H, W), 0 is black and 1 is white, float32 as they come in; unless said otherwise."""

Generators: TypeAlias = Sequence[np.random.Generator]
"""One for each of the N images."""


def generators(seed: int, path: tuple[int, ...], images: Iterable[int]) -> Generators:
    """A generator for each image, which depends on its own index and on nothing else of the batch.

    Args:
        seed: At least 0.
        path: Numbers that name the corruption.
        images: The indices of the images in their set.
    """
    return [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*path, index))) for index in images]


def normal(draws: Generators, shape: tuple[int, ...]) -> Pixels:
    """(N, *shape), standard normal."""
    return np.stack([one.standard_normal(shape, dtype=np.float32) for one in draws])


def uniform(draws: Generators, shape: tuple[int, ...]) -> Pixels:
    """(N, *shape), from 0 to 1."""
    return np.stack([one.random(shape, dtype=np.float32) for one in draws])


def angles(draws: Generators, low: float, high: float) -> list[float]:
    """N angles, in degrees."""
    return [one.uniform(low, high) for one in draws]
