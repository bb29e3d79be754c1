"""Random crops and flips, a whole batch at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from structured_ensembles.errors import DataError
from structured_ensembles.options.choices import Augmentation


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Vary each image of a batch independently.

    Args:
        images: (B, C, H, W), pixels in [0, 1], on any device.
        augmentation: What to do; NONE returns ``images`` itself.
        generator: Draws the shifts and flips on its own device, so that one on the CPU gives the same on all.

    Returns:
        (B, C, H, W), on the device of ``images``.

    Raises:
        DataError: If ``images`` are no batch of images and something is to be done.
    """
    if augmentation == Augmentation.NONE:
        return images
    check_images(images.shape[1:], augmentation)
    rows, columns = _still(images, 2), _still(images, 3)
    if augmentation in (Augmentation.CROP, Augmentation.CROP_FLIP):
        rows, columns = rows + _shifts(images, 2, generator), columns + _shifts(images, 3, generator)
    if augmentation in (Augmentation.FLIP, Augmentation.CROP_FLIP):
        mirrored = _draw(images, 2, generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    return _taken(images, rows, columns)


def check_images(shape: torch.Size | tuple[int, ...], augmentation: Augmentation) -> None:
    """Refuse to vary what is no image.

    Args:
        shape: Of one example; (C, H, W) is an image.
        augmentation: What is to be done.

    Raises:
        DataError: If something is to be done and the example is no image.
    """
    if augmentation != Augmentation.NONE and len(shape) != 3:
        raise DataError(
            f"augmentation {augmentation} is for images (channels, height, width), and an example has shape "
            f"{tuple(shape)}: use augmentation none."
        )


def padding(size: int) -> int:
    """By how many pixels at most a side of ``size`` is shifted: an eighth, at least one."""
    return max(1, size // 8)


def _still(images: Tensor, dim: int) -> Tensor:
    """(1, size), every position of a dimension in its place."""
    return torch.arange(images.shape[dim], device=images.device).unsqueeze(0)


def _shifts(images: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """(B, 1), from -padding to padding."""
    reach = padding(images.shape[dim])
    return _draw(images, 2 * reach + 1, generator) - reach


def _draw(images: Tensor, below: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(below, (len(images), 1), generator=generator, device=generator.device)
    return drawn.to(images.device)


def _taken(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixel (i, j) of each image from its (rows[i], columns[j]), black where that lies outside.

    Args:
        images: (B, C, H, W).
        rows: (B or 1, H).
        columns: (B or 1, W).
    """
    count, channels, height, width = images.shape
    source_rows = rows.clamp(0, height - 1).reshape(-1, 1, height, 1).expand(count, channels, height, width)
    source_columns = columns.clamp(0, width - 1).reshape(-1, 1, 1, width).expand(count, channels, height, width)
    moved = images.gather(2, source_rows).gather(3, source_columns)
    inside = _inside(rows, height).unsqueeze(2) & _inside(columns, width).unsqueeze(1)
    return moved * inside.unsqueeze(1)


def _inside(positions: Tensor, size: int) -> Tensor:
    return (positions >= 0) & (positions < size)
