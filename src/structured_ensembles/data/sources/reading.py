"""Images to predict: single files, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from structured_ensembles.data.sources.arrays import to_images
from structured_ensembles.data.sources.checks import check_file
from structured_ensembles.data.sources.files import SUFFIXES, decode, look
from structured_ensembles.data.sources.npz import keys, read_arrays
from structured_ensembles.data.sources.records import as_float
from structured_ensembles.data.sources.resizing import resize, with_channels
from structured_ensembles.errors import DataError


@dataclass(frozen=True, eq=False)
class Reading:
    """Images as a network takes them.

    Attributes:
        images: (N, C, H, W), uint8, or float32 in [0, 1].
        names: What to call each image: its file, with the index for those of an archive.
        notices: What was changed, one sentence each.
    """

    images: Tensor
    names: tuple[str, ...]
    notices: tuple[str, ...]


def read_images(paths: Sequence[str], input_shape: tuple[int, int, int]) -> Reading:
    """Read image files, and ``.npz`` archives with an array ``x`` or ``x_test``.

    Args:
        paths: The files.
        input_shape: (C, H, W) of the network; images are made grey or colour and stretched to it, with a notice.

    Raises:
        DataError: A file is missing, damaged or of another kind, or its channels cannot become the network's.
    """
    if not paths:
        raise DataError("no images were named: give one file or more")
    files = [Path(path).expanduser() for path in paths]
    for file in files:
        _check_kind(file)
    readings = [_archive(file, input_shape) if _is_archive(file) else _file(file, input_shape) for file in files]
    return Reading(
        _joined([reading.images for reading in readings]),
        tuple(name for reading in readings for name in reading.names),
        tuple(notice for reading in readings for notice in reading.notices),
    )


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _check_kind(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path} is a folder: name the image files in it")
    check_file(path)
    if not _is_archive(path) and path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path} is not an image: known are .npz, {', '.join(sorted(SUFFIXES))}")


def _file(path: Path, shape: tuple[int, int, int]) -> Reading:
    if shape[0] not in {1, 3}:
        raise DataError(
            f"{path}: image files have 1 or 3 channels, but the network takes {shape[0]}: give an .npz file"
        )
    seen = look(path)
    notices = _changes(str(path), (1 if seen.grey else 3, *seen.size), shape)
    dropped = (f"{path} is transparent: it was laid on white.",) if seen.transparent else ()
    return Reading(decode(path, shape[0], shape[1:]).unsqueeze(0), (str(path),), dropped + notices)


def _archive(path: Path, shape: tuple[int, int, int]) -> Reading:
    key = "x" if "x" in keys(path) else "x_test"
    array, guesses = to_images(f"{key} of {path}", read_arrays(path, [key])[key])
    channels, height, width = array.shape[1:]
    images = resize(with_channels(array, shape[0]), shape[1:])
    names = tuple(f"{path}[{i}]" for i in range(len(images)))
    return Reading(images, names, guesses + _changes(str(path), (channels, height, width), shape))


def _changes(name: str, there: tuple[int, int, int], wanted: tuple[int, int, int]) -> tuple[str, ...]:
    notices = []
    if there[0] != wanted[0]:
        notices.append(f"{name} was made {'grey' if wanted[0] == 1 else 'colour'}, as the network takes it.")
    if there[1:] != wanted[1:]:
        sizes = f"{there[1]}x{there[2]} (height x width) to {wanted[1]}x{wanted[2]}"
        notices.append(f"{name} was resized from {sizes}.")
    return tuple(notices)


def _joined(images: Sequence[Tensor]) -> Tensor:
    if len({one.dtype for one in images}) == 1:
        return torch.cat(list(images))
    return torch.cat([as_float(one) for one in images])
