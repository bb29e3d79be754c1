"""What an ensemble said about a set of examples: computed once, shared by every measurement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from structured_ensembles.artefact.file import Record
from structured_ensembles.data.examples import Examples
from structured_ensembles.data.sources import as_float
from structured_ensembles.errors import ArtefactError, DataError
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.prediction.uncertainty import Rejection, predict_from_logits, rejection_report
from structured_ensembles.progress import track
from structured_ensembles.types import Prediction

CHUNK = 1024
"""So many images are made floating numbers at a time."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What M members said about N examples.

    Attributes:
        logits: (M, N, K), on the CPU.
        labels: (N,), int64; None where nobody labelled them.
        combine: How the members' outputs become one prediction.
    """

    logits: Tensor
    labels: Tensor | None
    combine: Combine

    @cached_property
    def prediction(self) -> Prediction:
        """The combined prediction of all examples."""
        return predict_from_logits(self.logits, self.combine)

    @cached_property
    def correct(self) -> Tensor:
        """(N,), bool: whether each example was predicted correctly.

        Raises:
            DataError: The examples have no labels.
        """
        if self.labels is None:
            raise DataError("these images have no labels: right and wrong answers cannot be told apart")
        return self.prediction.classes == self.labels

    def rejection(self, threshold: float | None) -> Rejection | None:
        """What abstaining above a predictive entropy does, see `rejection_report`; None where there is no threshold."""
        if threshold is None:
            return None
        return rejection_report(self.prediction.predictive_entropy, self.correct, threshold)


def evenly(count: int, most: int) -> Tensor:
    """Indices of at most so many of ``count`` things, evenly spaced: int64."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().long()


def logits_of(ensemble: Ensemble, parts: Iterable[Tensor]) -> Tensor:
    """(M, N, K), on the CPU: the members' logits on all parts of N images, which may be uint8."""
    return torch.cat([ensemble.logits(as_float(part)).cpu() for part in parts], dim=1)


def ask(ensemble: Ensemble, images: Tensor, labels: Tensor | None = None, what: str = "predict") -> Answers:
    """Run all members once on any number of images.

    Args:
        ensemble: Takes pixels in [0, 1].
        images: (N, C, H, W), uint8, or float32 in [0, 1].
        labels: (N,), what the images show; on any device, as the images are.
        what: Said beside the progress bar.

    Raises:
        DataError: The logits hold NaN, or labels and images differ in number.
    """
    if labels is not None and len(labels) != len(images):
        raise DataError(f"{len(images)} images and {len(labels)} labels: pass one label per image")
    return _asked(ensemble, track(torch.split(images, CHUNK), what), labels)


def ask_about(ensemble: Ensemble, examples: Examples, what: str = "") -> Answers:
    """Run all members once on labelled examples, with a progress bar if it is said what for; see `ask`."""
    batches: Iterable[tuple[Tensor, Tensor]] = examples.batches(CHUNK, 0, shuffle=False)
    batches = track(batches, what) if what else batches
    return _asked(ensemble, (inputs for inputs, _ in batches), examples.labels)


def _asked(ensemble: Ensemble, parts: Iterable[Tensor], labels: Tensor | None) -> Answers:
    logits = logits_of(ensemble, parts)
    if broken := int(logits.isnan().any(dim=2).any(dim=0).sum()):
        raise DataError(f"the logits of {broken} of {logits.shape[1]} images are NaN: train the ensemble again")
    return Answers(logits, None if labels is None else labels.cpu().long(), ensemble.record.combine)


def answer(ensemble: Ensemble, images: Tensor) -> Prediction:
    """The ensemble's prediction for any number of images, on the CPU.

    Args:
        ensemble: Takes pixels in [0, 1].
        images: (N, C, H, W), uint8, or float32 in [0, 1].
    """
    return predict_from_logits(logits_of(ensemble, torch.split(images, CHUNK)), ensemble.record.combine)


def image_shape(record: Record) -> tuple[int, int, int]:
    """(C, H, W) of the images that an ensemble takes.

    Raises:
        ArtefactError: It does not take images.
    """
    if len(record.input_shape) != 3:
        raise ArtefactError(f"this ensemble takes inputs of shape {record.input_shape}, not images: use it in Python")
    channels, height, width = record.input_shape
    return channels, height, width
