from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from structured_ensembles.data.batches import as_dataset, loader, repeats, set_epoch
from structured_ensembles.data.examples import Examples
from structured_ensembles.data.labels import labels_of
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.seeding import derived_seed

from .conftest import Plain, tensors


class Stream(IterableDataset):
    def __iter__(self):
        return ((torch.tensor([float(i)]), i % 2) for i in range(5))


def seen(batches):
    return [inputs.flatten().tolist() for inputs, _ in batches]


# as_dataset


def test_a_dataset_and_a_plain_loader_give_the_dataset_itself():
    data = tensors()
    for source in (data, DataLoader(data), DataLoader(data, batch_size=3, shuffle=True), loader(data, 3, 0)):
        assert as_dataset(source) is data


def test_a_loader_of_a_part_gives_that_part_only():
    part = as_dataset(DataLoader(tensors(), batch_size=2, sampler=SubsetRandomSampler([1, 4, 7])))
    assert sorted(float(part[i][0]) for i in range(len(part))) == [1, 4, 7]


@pytest.mark.parametrize(
    "source",
    [
        Stream(),
        DataLoader(Stream(), batch_size=2),
        DataLoader(
            Plain([(torch.tensor([float(i)]), i % 2) for i in range(5)]),
            2,
            collate_fn=lambda batch: tuple(default_collate(batch)),
        ),
        [
            (torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 0])),
            (torch.tensor([[3.0], [4.0]]), torch.tensor([1, 0])),
        ],
    ],
)
def test_anything_else_is_drawn_into_memory(source):
    drawn = as_dataset(source)
    assert isinstance(drawn, TensorDataset)
    assert drawn.tensors[0].flatten().tolist() == [0, 1, 2, 3, 4]
    assert labels_of(drawn).tolist() == [0, 1, 0, 1, 0]


def test_a_collate_function_of_the_users_own_is_obeyed():
    def doubled(examples):
        inputs, labels = default_collate(examples)
        return 2 * inputs, labels

    drawn = as_dataset(DataLoader(tensors(4), batch_size=2, collate_fn=doubled))
    assert drawn.tensors[0].flatten().tolist() == [0, 2, 4, 6]


def test_drawing_leaves_the_global_generator_and_is_repeatable():
    def draw():
        return as_dataset(DataLoader(tensors(), batch_size=2, sampler=WeightedRandomSampler([1.0] * 10, 10))).tensors[0]

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = draw()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(draw(), first)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "empty"),
        ([torch.zeros(2, 3)], r"pair \(inputs, labels\)"),
        ([(torch.zeros(2, 3), torch.zeros(3))], r"inputs \(2, 3\) and labels \(3,\)"),
        ([(torch.zeros(3), 1)], "belong in a torch Dataset"),
    ],
)
def test_what_is_no_batch_is_refused(source, message):
    with pytest.raises(DataError, match=message):
        as_dataset(source)


# loader


def test_a_subclass_of_tensors_is_asked_for_its_items():
    class Flipped(TensorDataset):
        def __getitem__(self, index):
            inputs, label = super().__getitem__(index)
            return -inputs, 2 - label

    data = Flipped(*tensors().tensors)
    assert labels_of(data).tolist() == [2 - i % 3 for i in range(10)]
    assert seen(loader(data, 4, 0, shuffle=False))[0] == [0, -1, -2, -3]


@given(count=st.integers(1, 30), size=st.integers(1, 12), seed=st.integers(0, 9), epoch=st.integers(0, 5))
@settings(max_examples=60)
def test_batches_are_a_permutation_without_a_last_one_of_one(count, size, seed, epoch):
    batches = loader(tensors(count), size, seed)
    set_epoch(batches, epoch)
    drawn = seen(batches)
    assert sorted(itertools.chain(*drawn)) == list(range(count))
    assert len(drawn) == len(batches)
    assert all(len(batch) == size for batch in drawn[:-1])
    assert len(drawn[-1]) <= size + 1
    assert len(drawn[-1]) > 1 or size == 1 or count == 1


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    data = tensors(20)
    batches = loader(data, 4, 3)
    first, again = seen(batches), seen(batches)
    set_epoch(batches, 1)
    second = seen(batches)
    assert first == again != second
    late = loader(data, 4, 3)
    set_epoch(late, 1)
    assert seen(late) == second
    assert seen(loader(data, 4, 4)) != first
    assert seen(loader(data, 8, 3, shuffle=False))[0] == [0, 1, 2, 3, 4, 5, 6, 7]


def test_the_loader_gives_what_collating_one_by_one_gives():
    data = Subset(tensors(9), [8, 1, 5, 3])
    fast = list(loader(data, 4, 0))
    slow = list(loader(Plain([data[i] for i in range(4)]), 4, 0))
    assert all(torch.equal(a, b) for a, b in zip(fast[0], slow[0], strict=True))


def test_iterating_leaves_the_global_generator():
    before = torch.get_rng_state()
    list(loader(tensors(), 3, 0))
    assert torch.equal(torch.get_rng_state(), before)


class Noisy(Plain):
    def __getitem__(self, index):
        return torch.rand(1), index % 2


def test_workers_draw_the_same_numbers_for_the_same_epoch():
    def epoch(number, warm):
        batches = loader(Noisy(range(6)), 3, 0, num_workers=1)
        for past in range(number if warm else 0):
            set_epoch(batches, past)
            list(batches)
        set_epoch(batches, number)
        return seen(batches)

    assert epoch(1, warm=True) == epoch(1, warm=False) != epoch(0, warm=False)


def test_lightning_tells_our_sampler_the_epoch():
    from lightning.fabric.utilities.data import _set_sampler_epoch

    ours, told = loader(tensors(), 3, 0), loader(tensors(), 3, 0)
    set_epoch(ours, 2)
    _set_sampler_epoch(told, 2)
    assert seen(ours) == seen(told)


def test_impossible_loaders_are_refused():
    with pytest.raises(SettingsError, match="batch_size 0"):
        loader(tensors(), 0, 0)
    with pytest.raises(SettingsError, match="num_workers -1"):
        loader(tensors(), 1, 0, num_workers=-1)
    with pytest.raises(SettingsError, match="seed -1 is negative"):
        loader(tensors(), 1, -1)
    with pytest.raises(DataError, match="empty"):
        loader(Plain([]), 1, 0)


def test_derived_seeds_differ_along_every_path():
    seeds = {derived_seed(seed, *path) for seed in range(20) for path in [(), (0,), (1,), (0, 1), (1, 0), (1, 1)]}
    assert len(seeds) == 20 * 6
    assert derived_seed(3, 1, 2) == derived_seed(3, 1, 2)


class Twice(Sampler):
    """Draws one example twice, and never ends."""

    def __iter__(self):
        return itertools.cycle([0, 1, 1])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_size": 4}, False),
        ({"batch_size": 4, "shuffle": True}, False),
        ({"batch_size": 4, "sampler": SubsetRandomSampler([3, 1])}, False),
        ({"batch_size": 4, "sampler": SubsetRandomSampler([3, 1, 3])}, True),
        ({"batch_size": 4, "sampler": RandomSampler(range(10), replacement=True)}, True),
        ({"batch_size": 4, "sampler": Twice()}, True),
        ({"batch_sampler": BatchSampler(WeightedRandomSampler([1.0] * 10, 60), 4, False)}, True),
        ({"batch_sampler": [[0, 1], [2, 3]]}, False),
    ],
)
def test_loaders_that_draw_an_example_twice_are_known(options, expected):
    data = TensorDataset(torch.rand(10, 2), torch.arange(10))
    assert repeats(DataLoader(data, **options)) is expected


class Hundredfold(Subset):
    """A part with a transform and labels of its own, as users write it after `random_split`."""

    def __getitem__(self, index):
        x, y = self.dataset[self.indices[index]]
        return 100 * x, y + 7

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def test_a_subclass_of_subset_gives_its_own_examples():
    part = Hundredfold(TensorDataset(torch.ones(6, 2), torch.zeros(6, dtype=torch.int64)), range(4))
    for inputs, labels in loader(part, 2, 0):
        assert (inputs == 100).all()
        assert (labels == 7).all()
    assert labels_of(part).tolist() == [7] * 4


def small(examples: int = 40) -> TensorDataset:
    return TensorDataset(torch.arange(examples * 2).view(examples, 2).float(), torch.arange(examples) % 2)


def test_indices_of_a_subset_may_be_tensors() -> None:
    chosen = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:20]
    expected = [(inputs.tolist(), labels.tolist()) for inputs, labels in loader(Subset(small(), chosen.tolist()), 7, 1)]
    for data in (
        Subset(small(), chosen),
        as_dataset(DataLoader(small(), sampler=SubsetRandomSampler(chosen))),
        Subset(Subset(small(), list(range(40))), chosen),
    ):
        examples = Examples.of(data)
        assert [(inputs.tolist(), labels.tolist()) for inputs, labels in examples.batches(7, 1)] == expected
        kept, held_out = examples.split(0.2, 0)
        assert len(kept) + len(held_out) == 20


class Flow(IterableDataset):
    def __iter__(self):
        return iter(small())


def test_a_loader_may_be_over_anything_that_torch_takes() -> None:
    listed = [(inputs, int(label)) for inputs, label in small()]
    for source in (DataLoader(listed, batch_size=8), DataLoader(listed, batch_size=8, shuffle=True)):
        assert not repeats(source)
        (inputs, _), *_ = loader(as_dataset(source), 40, 0, shuffle=False)
        assert torch.equal(inputs, small().tensors[0])
    assert not repeats(DataLoader(Flow(), batch_size=8))
    assert len(as_dataset(DataLoader(Flow(), batch_size=8))) == 40


def test_repetitions_are_found_in_batches_and_subsets_too() -> None:
    data = small()
    twice = BatchSampler(RandomSampler(data, replacement=True, num_samples=60), 20, False)
    once = BatchSampler(RandomSampler(data), 20, False)
    assert repeats(DataLoader(data, sampler=twice, batch_size=None))
    assert not repeats(DataLoader(data, sampler=once, batch_size=None))
    assert repeats(DataLoader(data, sampler=[[0, 1], torch.tensor([2, 0])], batch_size=None))
    assert repeats(Subset(data, [0, 0, 1]))
    assert repeats(DataLoader(Subset(data, torch.tensor([0, 0, 1])), batch_size=2))
    assert not repeats(Subset(data, [0, 1]))
    assert not repeats(loader(data, 8, 0))
