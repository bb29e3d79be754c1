"""Single image files: what they hold, and their pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from structured_ensembles.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})

_GREY = frozenset({"1", "L", "LA", "La"})
_SIDEWAYS = frozenset({5, 6, 7, 8})
# What Pillow's decoders raise on damaged files.
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class Look(NamedTuple):
    """What the header of an image file says: (H, W) as a viewer shows it; grey, transparent, of 16 bits or not."""

    size: tuple[int, int]
    grey: bool
    transparent: bool
    deep: bool


def look(path: Path) -> Look:
    """Read an image's header only.

    Raises:
        DataError: The file is not an image that can be read.
    """
    with _opened(path) as image:
        width, height = image.size
        size = (width, height) if _is_sideways(image) else (height, width)
        return Look(size, _is_grey(image), _is_transparent(image), image.mode.startswith("I;16"))


def decode(path: Path, channels: int, size: tuple[int, int] | None) -> Tensor:
    """An image's pixels: (C, H, W), uint8.

    Turned as its EXIF orientation says, laid on white where it is transparent, the first frame of several, 16 bits cut
    to 8, stretched to ``size``.

    Args:
        path: The file.
        channels: 1 (grey) or 3 (colour).
        size: (H, W), or None to keep its own.

    Raises:
        DataError: The file is not an image, or is damaged.
    """
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        shallow = _eight_bits(path, upright) if upright.mode.startswith(("I", "F")) else _opaque(upright)
        converted = shallow.convert("L" if channels == 1 else "RGB")
        if size is not None and converted.size != size[::-1]:
            converted = converted.resize(size[::-1], Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(converted))
    return pixels.unsqueeze(0) if channels == 1 else pixels.permute(2, 0, 1)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"cannot read the image {path} ({reason}): remove it or replace it") from error


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in {"LA", "La", "RGBA", "RGBa", "PA"} or "transparency" in image.info


def _opaque(image: Image.Image) -> Image.Image:
    """Laid on white, as pages show it: what is drawn in black on nothing would else be black all over."""
    if not _is_transparent(image):
        return image
    drawn = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn)


def _is_grey(image: Image.Image) -> bool:
    return image.mode in _GREY or image.mode.startswith(("I", "F"))


def _is_sideways(image: Image.Image) -> bool:
    # Pillow decodes a whole PNG to look for an orientation behind its pixels.
    if image.format == "PNG" and "exif" not in image.info:
        return False
    return image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS


def _eight_bits(path: Path, image: Image.Image) -> Image.Image:
    """Pillow clips deeper greys at 255 instead of scaling them; 32 bits may hold 8."""
    values = np.array(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise DataError(f"{path} holds pixels of mode {image.mode}: save it with 8 or 16 bits a channel")
    shallow = image.mode == "I" and values.max() <= 255
    return Image.fromarray((values if shallow else values // 256).astype(np.uint8))
