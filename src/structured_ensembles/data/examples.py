"""Data examples: one value, read and checked once, from which every stage takes what it needs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from structured_ensembles.data.batches import Source, as_dataset, loader
from structured_ensembles.data.labels import check_finite, check_pair, labels_of, sized, spread
from structured_ensembles.errors import DataError, SettingsError, first_line
from structured_ensembles.seeding import derived_seed, seeded


@dataclass(frozen=True, eq=False)
class Examples:
    """N labelled examples, and all that is asked of them.

    `of` makes them where data come in. From there on nobody asks the data again for what is known of them, and a part
    of them knows its own without being read.

    Attributes:
        dataset: Map-style, of (x, y): what batches are read from.
        labels: (N,), int64, from 0 on.
        classes: Names of the K classes.
        example: (2, ...), the first two inputs, on the CPU; of a part, those of what it is a part of.
    """

    dataset: Dataset[Any]
    labels: Tensor
    classes: tuple[str, ...]
    example: Tensor

    @staticmethod
    def of(source: Data, classes: Sequence[str] | int | None = None) -> Examples:
        """Read and check what a source of data holds; where labels must be read to be known, that is one pass.

        Args:
            source: A loader, a dataset of (x, y), or any iterable of batches of inputs (B, ...) and labels (B,);
                or what this has made of one, which comes back.
            classes: Names of the classes, or how many there are; None, or none, numbers those of the labels.

        Raises:
            DataError: There are no examples, inputs are no tensors or not finite, or labels are no numbers from 0 on.
        """
        if isinstance(source, Examples):
            return source
        dataset = as_dataset(source)
        check_finite(dataset)
        example, labels = _example(dataset), labels_of(dataset)
        given = range(classes) if isinstance(classes, int) else classes
        names = () if given is None else tuple(str(name) for name in given)
        return Examples(dataset, labels, names or tuple(str(k) for k in range(int(labels.max()) + 1)), example)

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """What tells them from others."""
        return fingerprint(self)

    def batches(
        self, batch_size: int, seed: int, *, shuffle: bool = True, num_workers: int = 0
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of them, as `batches.loader` makes them."""
        return loader(self.dataset, batch_size, seed, shuffle=shuffle, num_workers=num_workers)

    def part(self, chosen: Tensor) -> Examples:
        """Those of some numbers (n,), in that order."""
        return replace(self, dataset=Subset(self.dataset, chosen.tolist()), labels=self.labels[chosen])

    def split(self, share: float, seed: int) -> tuple[Examples, Examples]:
        """Divide them into what is trained on and what is held out, class by class.

        Every class keeps at least one example to train on, and at least one example is held out in all.

        Args:
            share: About what share of each class is held out, in (0, 1).
            seed: Which examples those are.

        Returns:
            What is trained on and what is held out, each in the order of the whole.

        Raises:
            SettingsError: If ``share`` is outside (0, 1), or the seed is negative.
            DataError: If no class has two examples.
        """
        if not 0 < share < 1:
            raise SettingsError(
                f"held-out share {share} is outside (0, 1): 0.1 holds out a tenth of the training data."
            )
        counts = torch.bincount(self.labels)
        quotas = _held_out_counts(counts, share, seed)
        if int(quotas.sum()) == 0:
            raise DataError(
                f"{len(self)} examples are too few to hold any out: at least one class needs two, "
                "one to train on and one to hold out."
            )
        held_out = _place_in_class(self.labels, counts, seed) < quotas[self.labels]
        train, kept_back = (self.part(mask.nonzero().flatten()) for mask in (~held_out, held_out))
        return train, kept_back


def _example(dataset: Dataset[Any]) -> Tensor:
    """(2, ...), the first two inputs, on the CPU."""
    examples = [check_pair(dataset, index % sized(dataset)) for index in range(2)]
    if kinds := [type(inputs).__name__ for inputs, _ in examples if isinstance(inputs, (list, tuple, dict))]:
        raise DataError(f"an input must be ONE tensor or array, not a {kinds[0]}: make it one with torch.tensor()")
    try:
        example = torch.stack([torch.as_tensor(inputs).cpu() for inputs, _ in examples])
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"an input must be ONE tensor or array, of the same shape in every example ({first_line(error)}): turn "
            "images into tensors with ToTensor(), resize them, and pack several inputs into one tensor"
        ) from error
    if not torch.isfinite(example).all():
        raise DataError("the first inputs hold NaN or infinite values: clean the data first")
    return example


def _held_out_counts(counts: Tensor, share: float, seed: int) -> Tensor:
    """How many of each class are held out: its share rounded down, the rest of the total where most is missing.

    Where as much is missing the first class comes first; but if some class may get none at all, it is a draw: else it
    would be the last ones under every seed.
    """
    wanted = counts.to(torch.float64) * share
    limit = (counts - 1).clamp(min=0)
    taken = torch.minimum(wanted.floor().to(torch.int64), limit)
    missing = max(1, round(float(wanted.sum()))) - int(taken.sum())
    order = torch.arange(len(counts))
    if (wanted < 1).any():
        order = torch.randperm(len(counts), generator=torch.Generator().manual_seed(derived_seed(seed, 1)))
    neediest = order[torch.argsort((wanted - taken)[order], descending=True, stable=True)]
    neediest = neediest[taken[neediest] < limit[neediest]]
    taken[neediest[: max(missing, 0)]] += 1
    return taken


def _place_in_class(labels: Tensor, counts: Tensor, seed: int) -> Tensor:
    """(N,), the place of each example among those of its class, in a random order."""
    generator = torch.Generator().manual_seed(derived_seed(seed))
    order = torch.randperm(len(labels), generator=generator)
    order = order[torch.argsort(labels[order], stable=True)]
    first = counts.cumsum(0) - counts
    places = torch.empty_like(order)
    places[order] = torch.arange(len(labels)) - first[labels[order]]
    return places


def fingerprint(*parts: Examples) -> str:
    """Of all labels and of some inputs spread over the sets: enough to tell data apart without reading them whole."""
    found = hashlib.sha256()
    with seeded(0):  # transforms may draw at random: the same data are to have the same fingerprint each time
        for part in parts:
            found.update(part.labels.numpy().tobytes())
            for index in spread(len(part), FINGERPRINT_INPUTS):
                inputs = torch.as_tensor(part.dataset[index][0]).cpu().contiguous()
                found.update(inputs.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


FINGERPRINT_INPUTS = 32
"""So many inputs of a set tell it from another one."""


Data: TypeAlias = "Source | Examples"
"""What examples can be made of: a source of data, or examples."""
