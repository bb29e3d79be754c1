"""Images that no network was trained on, made from those that it is tested on: out of distribution without a download.

Shapes: N images, C channels, H rows, W columns. Every function takes images (N, C, H, W), uint8 or floating in [0, 1],
and a seed at least 0, and gives as many images of the same shape and type. It raises a DataError for what is no such
tensor and a SettingsError for a negative seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from structured_ensembles.errors import DataError
from structured_ensembles.seeding import derived_seed

Maker: TypeAlias = Callable[[Tensor, int], Tensor]
"""What makes a set of the test images and a seed."""

_PATCHES = 4


def uniform_noise(images: Tensor, seed: int) -> Tensor:
    """Every value of every pixel is drawn on its own, all equally likely."""
    _check(images)
    return _uniform(images.shape, images.dtype, _generator(seed))


def constant(images: Tensor, seed: int) -> Tensor:
    """Every image is of one colour, drawn like a pixel of the noise."""
    _check(images)
    colours = _uniform((*images.shape[:2], 1, 1), images.dtype, _generator(seed))
    return colours.expand_as(images).contiguous()


def shuffled_patches(images: Tensor, seed: int) -> Tensor:
    """Every image is cut into patches of a quarter of its side, which change places: true details, no true shape.

    Patches are a fourth of the height by a fourth of the width, rounded down, one pixel at least. As many as fit are
    shuffled, each image in an order of its own; the rows and columns that are left over, at the bottom and the right,
    stay. (An image of one pixel stays altogether.)
    """
    _check(images)
    count, channels, height, width = images.shape
    high, wide = max(height // _PATCHES, 1), max(width // _PATCHES, 1)
    rows, columns = height // high, width // wide
    whole = images[..., : rows * high, : columns * wide]
    grid = whole.reshape(count, channels, rows, high, columns, wide).permute(0, 2, 4, 1, 3, 5)
    patches = grid.reshape(count, rows * columns, channels, high, wide)
    order = torch.rand(count, rows * columns, generator=_generator(seed)).argsort(dim=1)
    moved = patches[torch.arange(count)[:, None], order].reshape(grid.shape).permute(0, 3, 1, 4, 2, 5)
    shuffled = images.clone()
    shuffled[..., : rows * high, : columns * wide] = moved.reshape(whole.shape)
    return shuffled


SETS: Mapping[str, Maker] = {"uniform noise": uniform_noise, "constant": constant, "shuffled patches": shuffled_patches}
"""By name, the sets that are always at hand."""


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(seed))


def _uniform(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=dtype, generator=generator)
    return torch.rand(shape, dtype=dtype, generator=generator)


def _check(images: Tensor) -> None:
    if images.dim() != 4 or images.numel() == 0:
        raise DataError(f"images of shape {tuple(images.shape)}: pass (N, C, H, W), with one image at least")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise DataError(f"images are {images.dtype}: pass uint8, or floats in [0, 1]")
