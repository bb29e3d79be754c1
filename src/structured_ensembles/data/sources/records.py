"""What loaded images are, and what training asks of them.

Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset

from structured_ensembles.data.examples import Examples
from structured_ensembles.errors import DataError

GREY_LEVEL = 1 / 255
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Split(Dataset[tuple[Tensor, int]]):
    """Labelled images in memory: a dataset of (pixels, label), float32 in [0, 1] of shape (C, H, W), and an int.

    Images are converted when they are asked for: four bytes a pixel for one batch, not for the whole set.

    Attributes:
        images: (N, C, H, W), uint8, or float32 in [0, 1].
        labels: (N,), int64, from 0 to the number of classes less 1.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image as floats, and its label."""
        return as_float(self.images[index]), int(self.labels[index])

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Several of them, converted together."""
        chosen = torch.as_tensor(indices)
        return list(zip(as_float(self.images[chosen]).unbind(), self.labels[chosen].tolist(), strict=True))

    def part(self, chosen: Tensor) -> Split:
        """Those of a mask (N,), or of some numbers in their order."""
        return Split(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images to learn from and images to measure on.

    Attributes:
        name: Where they come from, as a reader would call it.
        train: What the networks learn from.
        test: What they are measured on.
        classes: The name of each label.
        notices: What was changed or guessed while reading, one sentence each.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    notices: tuple[str, ...] = ()

    @cached_property
    def learned(self) -> Examples:
        """What networks learn from, as every fit takes it."""
        return Examples.of(self.train, self.classes)

    @cached_property
    def measured(self) -> Examples:
        """What they are measured on."""
        return Examples.of(self.test, self.classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def as_float(images: Tensor) -> Tensor:
    """The pixels as float32 in [0, 1], whichever of the two ways they are stored in."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def mean_and_std(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel's pixels in [0, 1], rounded to 6 digits.

    The deviation is one grey level (1/255) at least, so that a constant channel can be divided by it.
    """
    total = torch.zeros(split.images.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for images in torch.split(split.images, _CHUNK):
        pixels = as_float(images).double()
        total += pixels.sum(dim=(0, 2, 3))
        squares += pixels.square().sum(dim=(0, 2, 3))
    count = split.images[:, 0].numel()
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=GREY_LEVEL)
    return _rounded(mean), _rounded(std)


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values.tolist())


def divide(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Cut a split in two, class by class: the second part holds ``share`` of each class, rounded.

    Each part gets one image of every class at least, and keeps the order of the split.

    Raises:
        DataError: A class has one image only, which cannot be in both parts.
    """
    generator = torch.Generator().manual_seed(seed)
    second = torch.zeros(len(split), dtype=torch.bool)
    for label in torch.unique(split.labels).tolist():
        members = (split.labels == label).nonzero().flatten()
        if len(members) < 2:
            raise DataError(f"class {label} has one image only: at least 2 are needed to cut the set in two")
        taken = min(max(round(share * len(members)), 1), len(members) - 1)
        second[members[torch.randperm(len(members), generator=generator)[:taken]]] = True
    return split.part(~second), split.part(second)
