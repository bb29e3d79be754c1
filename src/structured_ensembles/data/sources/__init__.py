"""Images and labels: the digits, ``.npz`` files, folders of images and the named vision sets."""

from __future__ import annotations

from structured_ensembles.data.sources.reading import Reading, read_images
from structured_ensembles.data.sources.records import ImageData, Split, as_float, divide, mean_and_std
from structured_ensembles.data.sources.source import load
from structured_ensembles.data.sources.unlabelled import Unlabelled, load_unlabelled

__all__ = [
    "ImageData",
    "Reading",
    "Split",
    "Unlabelled",
    "as_float",
    "divide",
    "load",
    "load_unlabelled",
    "mean_and_std",
    "read_images",
]
