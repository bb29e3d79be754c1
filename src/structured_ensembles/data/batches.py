"""Batches: those that users bring, as one map-style dataset, and those that stages take, in a known order.

The order of a loader is a pure function of its seed and its epoch, so that a run which was killed and resumed sees
the batches that it would have seen, and nothing here draws from the global random generator.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from structured_ensembles.data.labels import described, sized
from structured_ensembles.errors import DataError, SettingsError, first_line
from structured_ensembles.seeding import derived_seed

_DRAW_SIZE = 256

Source: TypeAlias = "DataLoader[Any] | Dataset[Any] | Iterable[tuple[Tensor, Tensor]]"
"""Where labelled examples come from: a loader, a dataset of (x, y), or batches of inputs (B, ...) and labels (B,)."""


def as_dataset(source: Source) -> Dataset[Any]:
    """The map-style dataset of (x, y) examples behind a source of data.

    A dataset is returned as it is, and a plain loader gives up its own, transforms included. Where the loader itself
    decides what an example is (a collate function, a sampler or a batching of the user's own, an iterable dataset), and
    for any other iterable of batches, the source is drawn ONCE into memory; whatever it draws at random stays fixed.

    Args:
        source: A loader, a dataset, or any iterable of batches of inputs (B, ...) and labels (B,).

    Raises:
        DataError: If nothing comes out, or something else than pairs of tensors of one length.
    """
    if isinstance(source, IterableDataset):
        return _drawn(DataLoader(source, batch_size=_DRAW_SIZE))
    if isinstance(source, DataLoader):
        return _behind(source)
    return source if isinstance(source, Dataset) else _drawn(source)


def _behind(source: DataLoader[Any]) -> Dataset[Any]:
    dataset, sampler = source.dataset, source.sampler
    if isinstance(dataset, _Collated):
        return dataset.dataset
    plain = source.batch_size is not None and source.collate_fn is default_collate
    if not plain or isinstance(dataset, IterableDataset):
        return _drawn(source)
    if isinstance(sampler, SubsetRandomSampler):
        return Subset(dataset, [int(index) for index in sampler.indices])
    whole = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler and _without_repeats(sampler, dataset)
    )
    return dataset if whole else _drawn(source)


def _without_repeats(sampler: RandomSampler, dataset: Dataset[Any]) -> bool:
    return not sampler.replacement and sampler.num_samples == sized(dataset)


def _drawn(source: Iterable[tuple[Tensor, Tensor]]) -> TensorDataset:
    # A loader takes its seeds from the global generator: lend it one, so that the draw is the same each time.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        batches = [_checked_batch(batch) for batch in _iterated(source)]
    if not batches:
        raise DataError("the data are empty: no batch came out. Check the path, the filter or the sampler.")
    inputs, labels = zip(*batches, strict=True)
    return TensorDataset(torch.cat(inputs), torch.cat(labels))


def _iterated(source: object) -> Iterable[object]:
    if isinstance(source, Iterable):
        return source
    raise DataError(
        f"the data are a {type(source).__name__}: give a DataLoader, a Dataset of (x, y), or batches (inputs, labels)"
    )


def _checked_batch(batch: object) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise DataError(
            f"a batch must be a pair (inputs, labels), got {described(batch)}: whole arrays x and y are given as "
            "TensorDataset(x, y)."
        )
    try:
        inputs, labels = (torch.as_tensor(part) for part in batch)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"a batch must hold tensors or arrays ({first_line(error)}): number the classes 0 ... K-1, and give their "
            "names as classes=[...]"
        ) from error
    if labels.ndim == 0 or inputs.ndim == 0 or len(inputs) != len(labels):
        raise DataError(
            f"a batch must hold as many labels as inputs, got inputs {tuple(inputs.shape)} and labels "
            f"{tuple(labels.shape)}. Examples that are not in batches belong in a torch Dataset."
        )
    return inputs, labels


def refuse_repeats(source: object) -> None:
    """Refuse a source of which a split could put one example into both of its parts.

    Raises:
        DataError: One example can come out several times.
    """
    if repeats(source):
        raise DataError(
            "the loader draws examples with replacement: some would be trained on and held out at once. Give "
            "held_out=..., or a loader without such a sampler"
        )


def repeats(source: object) -> bool:
    """Whether one example can come out several times: a loader draws with replacement, or a subset names it twice.

    Samplers that are not torch's own are asked for one epoch, or for as much of it as cannot be without a repetition.
    """
    if isinstance(source, DataLoader):
        dataset = source.dataset
        if isinstance(dataset, _Collated):
            return repeats(dataset.dataset)
        return not isinstance(dataset, IterableDataset) and (_draws_twice(source) or repeats(dataset))
    return type(source) is Subset and len({int(index) for index in source.indices}) < len(source.indices)


def _draws_twice(source: DataLoader[Any]) -> bool:
    drawn: Any = source.sampler if source.batch_sampler is None else source.batch_sampler
    sampler = drawn.sampler if type(drawn) is BatchSampler else drawn
    if isinstance(sampler, (RandomSampler, WeightedRandomSampler)):
        return sampler.replacement
    if isinstance(sampler, SequentialSampler):
        return False
    seen: set[int] = set()
    for index in itertools.islice(_flat(drawn), sized(source.dataset) + 1):
        if index in seen:
            return True
        seen.add(index)
    return False


def _flat(drawn: Iterable[Any]) -> Iterator[int]:
    """Indices, one by one, of a sampler of indices or of batches of them."""
    for one in drawn:
        yield from torch.as_tensor(one).flatten().tolist()


class EpochBatches(Sampler[list[int]]):
    """Batches of indices whose order is a pure function of (seed, epoch).

    It never advances by itself: iterated twice, it gives the same order twice. Lightning calls ``set_epoch`` at the
    start of each epoch; other loops call this module's.

    The last batch may be smaller, but a last batch of ONE is joined to the one before, because batch normalisation
    cannot be trained on a single example.
    """

    def __init__(self, examples: int, batch_size: int, seed: int, *, shuffle: bool, generator: torch.Generator) -> None:
        self.examples, self.batch_size, self.seed, self.shuffle = examples, batch_size, seed, shuffle
        self.generator = generator
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, of the next iteration."""
        self.epoch = epoch
        # The loader seeds its workers from the generator that it shares with this sampler.
        self.generator.manual_seed(derived_seed(self.seed, epoch, 1))

    def __len__(self) -> int:
        full, rest = divmod(self.examples, self.batch_size)
        return full + (rest > 1 or (rest == 1 and full == 0))

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order().tolist()
        for batch in range(len(self)):
            stop = None if batch == len(self) - 1 else (batch + 1) * self.batch_size
            yield order[batch * self.batch_size : stop]

    def _order(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.examples)
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch))
        return torch.randperm(self.examples, generator=generator)


class _Collated(Dataset[tuple[Tensor, Tensor]]):
    """A dataset that is indexed by lists and gives whole batches: tensors are indexed once, not once an example."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return _gather(self.dataset, indices)


def _gather(dataset: Dataset[Any], indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    if type(dataset) is TensorDataset:
        inputs, labels = (tensor[indices] for tensor in dataset.tensors)
        return inputs, labels
    if type(dataset) is Subset:
        # As numbers: torch reads a short list of tensors as one index in several dimensions.
        return _gather(dataset.dataset, [int(dataset.indices[index]) for index in indices])
    many = getattr(dataset, "__getitems__", None)  # the protocol of PyTorch's own fetcher
    inputs, labels = default_collate(many(indices) if many else [dataset[index] for index in indices])
    return inputs, labels


def loader(
    dataset: Dataset[Any], batch_size: int, seed: int, *, shuffle: bool = True, num_workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of a map-style dataset; see `EpochBatches` for their order and for the last one.

    ``sampler`` deals in whole batches, so the loader's own ``batch_size`` is None.

    Args:
        dataset: N examples (x, y).
        batch_size: B, at least 1.
        seed: Of the order, and of the workers.
        shuffle: Whether the order changes from epoch to epoch; else it is the dataset's own.
        num_workers: Processes that read the data; 0 reads them in this one.

    Raises:
        SettingsError: If a number is below its limit.
        DataError: If the dataset is empty, or has no length.
    """
    if batch_size < 1 or num_workers < 0:
        raise SettingsError(f"batch_size {batch_size} must be at least 1, num_workers {num_workers} at least 0.")
    generator = torch.Generator()
    batches = EpochBatches(sized(dataset), batch_size, seed, shuffle=shuffle, generator=generator)
    return DataLoader(
        _Collated(dataset), batch_size=None, sampler=batches, generator=generator, num_workers=num_workers
    )


def set_epoch(batches: DataLoader[Any], epoch: int) -> None:
    """Choose the epoch, counted from 0, whose order the next iteration of a loader of this module has."""
    if isinstance(batches.sampler, EpochBatches):
        batches.sampler.set_epoch(epoch)
