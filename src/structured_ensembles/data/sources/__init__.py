"""Images and labels: the digits, ``.npz`` files, folders of images and the named vision sets."""

from __future__ import annotations

from structured_ensembles.data.sources.reading import read_images
from structured_ensembles.data.sources.records import ImageData, Split, as_float, mean_and_std
from structured_ensembles.data.sources.source import load
from structured_ensembles.data.sources.unlabelled import Unlabelled, load_unlabelled

__all__ = ["ImageData", "Split", "Unlabelled", "as_float", "load", "load_unlabelled", "mean_and_std", "read_images"]
