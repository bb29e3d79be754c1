"""Images of any kind without their labels: what an ensemble should notice that it has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from structured_ensembles.data.sources.checks import check_memory
from structured_ensembles.data.sources.files import SUFFIXES, decode, look
from structured_ensembles.data.sources.folder import TEST_NAMES, TRAIN_NAMES
from structured_ensembles.data.sources.reading import read_images
from structured_ensembles.data.sources.resizing import resize, with_channels
from structured_ensembles.data.sources.source import existing, load, named
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.progress import track


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Images of one source, as a network takes them.

    Attributes:
        name: Where they come from, as a reader would call it.
        images: (N, C, H, W), uint8, or float32 in [0, 1].
        notices: What was chosen or changed while reading, one sentence each.
    """

    name: str
    images: Tensor
    notices: tuple[str, ...]


def load_unlabelled(
    source: str, input_shape: tuple[int, int, int], limit: int | None = None, *, root: str | None = None
) -> Unlabelled:
    """Read images, whatever they show; labels are neither needed nor looked at.

    Args:
        source: A name that `load` knows, whose test images are read; an ``.npz`` file with an array x or x_test; an
            image file; or a folder, of which all images are read at whatever depth: those of its test (or val, valid)
            folder where it has that and a train folder, as `load` takes it, and hidden files never.
        input_shape: (C, H, W) of the network; images are made grey or colour and stretched to it, with a notice.
        limit: Read so many images at most, spread evenly over the source; None reads all.
        root: Where the named sets are kept, as for `load`.

    Raises:
        DataError: There is no image, one cannot be read, or its channels cannot become the network's.
        SettingsError: ``source`` is neither a name nor a path, or ``limit`` is below 1.
    """
    if limit is not None and limit < 1:
        raise SettingsError(f"limit {limit}: read 1 image or more, or None for all")
    path = None if named(source) else existing(source)
    if path is None:  # a name; or nothing at all, which the loader explains best
        return _test_images(source, input_shape, limit, root)
    if path.is_dir():
        return _folder(path, input_shape, limit)
    reading = read_images([str(path)], input_shape)
    return _thinned(Unlabelled(path.name, reading.images, reading.notices), limit)


def _test_images(source: str, shape: tuple[int, int, int], limit: int | None, root: str | None) -> Unlabelled:
    data = load(source, root=root)
    chosen = _thinned(Unlabelled(data.name, data.test.images, ()), limit)
    count, channels, height, width = chosen.images.shape
    images = resize(with_channels(chosen.images, shape[0]), shape[1:])
    changes = _changes(count, count * ((height, width) != shape[1:]), count * (channels != shape[0]), shape)
    return replace(chosen, images=images, notices=chosen.notices + changes)


def _folder(folder: Path, shape: tuple[int, int, int], limit: int | None) -> Unlabelled:
    if shape[0] not in {1, 3}:
        raise DataError(
            f"{folder}: image files have 1 or 3 channels, but the network takes {shape[0]}: give an .npz file"
        )
    paths, notices = _image_files(folder)
    chosen = [paths[i] for i in _spread(len(paths), limit)]
    check_memory(len(chosen), shape)
    images = torch.empty((len(chosen), *shape), dtype=torch.uint8)
    resized = recoloured = 0
    for i, path in enumerate(track(chosen, "read images")):
        seen = look(path)
        resized += seen.size != shape[1:]
        recoloured += seen.grey != (shape[0] == 1)
        images[i] = decode(path, shape[0], shape[1:])
    notices += _fewer(len(chosen), len(paths)) + _changes(len(chosen), resized, recoloured, shape)
    return Unlabelled(folder.resolve().name, images, notices)


def _image_files(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """All images below a folder, or below its test part, in order; and what was left out."""
    try:
        part, notices = _part(folder)
        files = [path for path in sorted(part.rglob("*")) if path.is_file() and not _is_hidden(path, part)]
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error}") from error
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        raise DataError(f"{part} has no images ({', '.join(sorted(SUFFIXES))}): name a folder that holds some")
    others = len(files) - len(images)
    skipped = (f"{others} files in {part} are not images and were skipped.",) if others else ()
    return images, notices + skipped


def _part(folder: Path) -> tuple[Path, tuple[str, ...]]:
    inside = {path.name.casefold(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    tests = [inside[name] for name in TEST_NAMES if name in inside]
    if not inside.keys() & set(TRAIN_NAMES) or not tests:
        return folder, ()
    return tests[0], (f"Of {folder} only the images in {tests[0].name} were read.",)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _thinned(read: Unlabelled, limit: int | None) -> Unlabelled:
    count = len(read.images)
    chosen = _spread(count, limit)
    if len(chosen) == count:
        return read
    return replace(read, images=read.images[list(chosen)], notices=read.notices + _fewer(len(chosen), count))


def _spread(count: int, limit: int | None) -> Sequence[int]:
    """At most ``limit`` of the indices below ``count``, evenly spaced: sources are often sorted by class."""
    if limit is None or limit >= count:
        return range(count)
    return [i * count // limit for i in range(limit)]


def _fewer(chosen: int, there: int) -> tuple[str, ...]:
    return () if chosen == there else (f"{chosen} of {there} images were read, spread evenly.",)


def _changes(count: int, resized: int, recoloured: int, shape: tuple[int, int, int]) -> tuple[str, ...]:
    notices = []
    if recoloured:
        colour = "grey" if shape[0] == 1 else "colour"
        notices.append(f"{recoloured} of {count} images were made {colour}, as the network takes them.")
    if resized:
        notices.append(f"{resized} of {count} images were resized to {shape[1]}x{shape[2]} (height x width).")
    return tuple(notices)
