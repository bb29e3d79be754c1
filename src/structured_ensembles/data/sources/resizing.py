"""Images already in memory, brought to another size or number of channels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from structured_ensembles.data.sources.checks import check_memory
from structured_ensembles.data.sources.records import as_float
from structured_ensembles.errors import DataError

_CHUNK = 1024
# Rec. 601, which image libraries use for their grey.
_LUMA = (0.299, 0.587, 0.114)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Stretch (N, C, H, W) to (N, C, *size), smoothed where it shrinks; the type stays."""
    if tuple(images.shape[2:]) == size:
        return images
    shape = (images.shape[1], *size)
    check_memory(len(images), shape)
    resized = torch.empty((len(images), *shape), dtype=images.dtype)
    for part, source in zip(torch.split(resized, _CHUNK), torch.split(images, _CHUNK), strict=True):
        pixels = functional.interpolate(as_float(source), size, mode="bilinear", antialias=True, align_corners=False)
        part.copy_(_stored_as(pixels, images.dtype))
    return resized


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Make (N, C, H, W) grey (1 channel) or colour (3 channels); the type stays.

    Raises:
        DataError: Neither of the two is possible.
    """
    there = images.shape[1]
    if there == channels:
        return images
    if (there, channels) == (1, 3):
        return images.expand(-1, 3, -1, -1)
    if (there, channels) == (3, 1):
        luma = torch.tensor(_LUMA).view(1, 3, 1, 1)
        return _stored_as((as_float(images) * luma).sum(dim=1, keepdim=True), images.dtype)
    raise DataError(f"images of {there} channels cannot become the {channels} channels that the network takes")


def _stored_as(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats in [0, 1], give or take rounding, as they are stored."""
    inside = pixels.clamp(0, 1)
    return (inside * 255).round().to(torch.uint8) if dtype == torch.uint8 else inside
