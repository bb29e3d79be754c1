"""Corruptions by cameras and computers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image
from scipy import ndimage

from structured_ensembles.evaluation.corruptions.draws import Generators, Pixels

_RED = np.array([0, 1, 1], dtype=np.float32)[:, None, None]
"""How much each channel loses when a grey becomes saturated: its hue counts as red, as it does elsewhere."""


def brightness(images: Pixels, _: Generators, more: float) -> Pixels:
    """The value of hue, saturation, value grows; black becomes grey."""
    value: Pixels = images.max(axis=1, keepdims=True)
    brighter: Pixels = (value + more).clip(0, 1)
    return np.where(value > 0, images * brighter / _positive(value), brighter)


def saturate(images: Pixels, _: Generators, factor: float, more: float) -> Pixels:
    """The saturation of hue, saturation, value is multiplied, then grows. Takes 3 channels."""
    value: Pixels = images.max(axis=1, keepdims=True)
    saturation = (value - images.min(axis=1, keepdims=True)) / _positive(value)
    changed: Pixels = (saturation * factor + more).clip(0, 1)
    grey = value * (1 - changed * _RED)
    return np.where(saturation > 0, value - (value - images) * changed / _positive(saturation), grey)


def _positive(divisor: Pixels) -> Pixels:
    return np.maximum(divisor, np.finfo(np.float32).tiny)


def contrast(images: Pixels, _: Generators, kept: float) -> Pixels:
    """Every channel comes nearer to its mean over the image."""
    means: Pixels = images.mean(axis=(2, 3), keepdims=True, dtype=np.float64).astype(np.float32)
    return means + kept * (images - means)


def pixelate(images: Pixels, _: Generators, share: float) -> Pixels:
    """Made smaller, and as large as before, by boxes."""
    height, width = images.shape[2:]
    small = (int(width * share), int(height * share))
    return _each(
        images, lambda it: it.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
    )


def jpeg_compression(images: Pixels, _: Generators, quality: float) -> Pixels:
    """Stored as JPEG."""
    return _each(images, lambda picture: _through_jpeg(picture, int(quality)))


def _through_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=quality)
    return Image.open(stored)


def _each(images: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    """What a change of pictures makes of 1 or 3 channels."""
    changed = np.stack([np.asarray(change(picture)) for picture in _pictures(images)])
    channels_last = changed if changed.ndim == 4 else changed[..., None]
    return np.moveaxis(channels_last, -1, 1).astype(np.float32) / 255


def _pictures(images: Pixels) -> Iterator[Image.Image]:
    for image in np.rint(np.moveaxis(images, 1, -1) * 255).astype(np.uint8):
        yield Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


def elastic_transform(images: Pixels, draws: Generators, strength: float, sigma: float, slant: float) -> Pixels:
    """Slanted at random, then stretched here and there.

    Args:
        images: (N, C, H, W).
        draws: One for each image.
        strength: Of the stretching, in shares of the smaller side, as are the next two.
        sigma: How smooth it is.
        slant: How far each of three points is moved at most, which define the affine map.
    """
    side = min(images.shape[2:])
    pairs = zip(images, draws, strict=True)
    return np.stack(
        [_stretched(_slanted(i, one, slant * side), one, strength * side, sigma * side) for i, one in pairs]
    )


def _slanted(image: Pixels, draw: np.random.Generator, reach: float) -> Pixels:
    """One image (C, H, W) after the affine map that moves three points around its middle."""
    middle, around = np.array(image.shape[1:]) // 2, min(image.shape[1:]) // 3
    points = middle + around * np.array([[1, 1], [-1, 1], [-1, -1]])
    moved = points + draw.uniform(-reach, reach, (3, 2))
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), points)
    channels = [ndimage.affine_transform(one, back[:2].T, back[2], order=1, mode="mirror") for one in image]
    return np.stack(channels)


def _stretched(image: Pixels, draw: np.random.Generator, strength: float, sigma: float) -> Pixels:
    noise = draw.uniform(-1, 1, (2, *image.shape[1:]))
    steps = strength * ndimage.gaussian_filter(noise, (0, sigma, sigma), mode="reflect", truncate=3)
    where = np.indices(image.shape[1:]) + steps
    return np.stack([ndimage.map_coordinates(one, where, order=1, mode="reflect") for one in image])
