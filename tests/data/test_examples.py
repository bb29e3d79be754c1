from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from structured_ensembles.data.examples import Examples, fingerprint
from structured_ensembles.data.sources import Split
from structured_ensembles.errors import DataError, SettingsError

from .conftest import Plain, tensors


def test_they_are_what_the_source_holds():
    data = tensors(10)
    examples = Examples.of(DataLoader(data, batch_size=3, shuffle=True))
    assert examples.dataset is data
    assert (len(examples), examples.labels.tolist()) == (10, [i % 3 for i in range(10)])
    assert examples.example.tolist() == [[0.0], [1.0]]
    inputs, labels = next(iter(examples.batches(6, 0, shuffle=False)))
    assert (inputs.flatten().tolist(), labels.tolist()) == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2])
    assert Examples.of(tensors(1)).example.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("classes", "names"),
    [(None, ("0", "1", "2")), ((), ("0", "1", "2")), (4, ("0", "1", "2", "3")), (np.array(["a", "b"]), ("a", "b"))],
)
def test_classes_are_named_counted_or_those_of_the_labels(classes, names):
    assert Examples.of(tensors(), classes).classes == names


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Plain([]), "the dataset is empty: it holds no example"),
        (TensorDataset(torch.zeros(0, 1), torch.zeros(0)), "the dataset is empty"),
        (TensorDataset(torch.zeros(3, 1)), "an example must be a pair"),
        (Plain([([0.5] * 64, 0)]), "an input must be ONE tensor or array, not a list"),
        (Plain([(torch.zeros(2), 0), (torch.zeros(3), 0)]), "of the same shape in every example"),
        (Plain([(torch.tensor([torch.nan]), 0)]), "the first inputs hold NaN or infinite values"),
        (
            TensorDataset(torch.full((3, 1), torch.inf), torch.zeros(3)),
            "3 NaN or infinite values, the first in example 0",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_refused_at_the_door(source, message):
    with pytest.raises(DataError, match=message):
        Examples.of(source)


def test_images_in_memory_are_not_read_to_know_their_labels(monkeypatch):
    images = Split(torch.randint(0, 256, (100, 1, 4, 4), dtype=torch.uint8), torch.arange(100) % 3)
    reads, one = [], Split.__getitem__
    monkeypatch.setattr(Split, "__getitem__", lambda split, index: reads.append(index) or one(split, index))
    assert Examples.of(images).labels is images.labels
    assert len(reads) < 20


# split


@given(
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(lambda c: max(c) >= 2),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60)
def test_a_split_is_a_stratified_partition(counts, share, seed):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    data = TensorDataset(labels.unsqueeze(1).float(), labels)
    train, held_out = Examples.of(data).split(share, seed)
    assert sorted([*train.dataset.indices, *held_out.dataset.indices]) == list(range(len(labels)))
    assert len(held_out) >= 1
    kept_back = torch.bincount(held_out.labels, minlength=len(counts)).tolist()
    for count, held in zip(counts, kept_back, strict=True):
        assert count == held == 0 or held <= count - 1
        assert held <= share * count + 1
        assert held >= min(int(share * count), count - 1)
    assert len(held_out) <= max(1, round(share * len(labels)))
    for part in (train, held_out):
        assert part.labels.tolist() == [int(part.dataset[i][1]) for i in range(len(part))]


def test_small_classes_give_their_share_together():
    data = tensors(count=40, classes=10)
    _, held_out = Examples.of(data).split(0.1, 0)
    assert len(held_out) == 4


def test_the_seed_decides_the_split():
    first, again, other = (Examples.of(tensors(30)).split(0.2, seed)[1].dataset.indices for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_its_limits_is_refused(share):
    with pytest.raises(SettingsError, match=r"outside \(0, 1\)"):
        Examples.of(tensors()).split(share, 0)


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_examples_are_refused(count):
    with pytest.raises(DataError, match=f"{count} examples are too few"):
        Examples.of(tensors(count, classes=3)).split(0.5, 0)


def test_of_many_small_classes_chance_decides_which_are_held_out() -> None:
    labels = torch.arange(500) % 100
    data = TensorDataset(torch.zeros(500, 1), labels)
    found = [set(Examples.of(data).split(0.1, seed)[1].labels.tolist()) for seed in range(3)]
    assert [len(classes) for classes in found] == [50, 50, 50]
    assert found[0] != found[1] != found[2]
    assert all(max(classes) >= 90 for classes in found)


def test_a_part_knows_its_labels_in_whatever_order_it_is():
    examples = Examples.of(tensors(), ["a", "b", "c"])
    part = examples.part(torch.tensor([7, 0, 5]))
    assert part.labels.tolist() == [1, 0, 2] == [int(part.dataset[i][1]) for i in range(3)]
    assert part.classes is examples.classes
    assert part.example is examples.example


# fingerprint


def test_the_fingerprint_is_of_all_labels_and_of_inputs_spread_over_the_set():
    """Folders that an earlier version left are known by it: it stays what it is."""
    data = Examples.of(tensors(70))
    expected = hashlib.sha256((torch.arange(70) % 3).numpy().tobytes())
    for index in range(0, 70, 3):  # 70 / 32, rounded up
        expected.update(torch.tensor([float(index)]).numpy().tobytes())
    assert data.fingerprint == expected.hexdigest()
    expected.update(torch.tensor([2, 1]).numpy().tobytes())
    expected.update(torch.tensor([5.0, 4.0]).numpy().tobytes())
    assert fingerprint(data, Examples.of(Subset(tensors(), [5, 4]))) == expected.hexdigest()


def test_the_fingerprint_tells_other_labels_and_other_inputs():
    data = tensors(70)
    relabelled, changed = (TensorDataset(*(tensor.clone() for tensor in data.tensors)) for _ in range(2))
    relabelled.tensors[1][1] = 2
    changed.tensors[0][3] = -1
    same, *others = (Examples.of(one).fingerprint for one in (tensors(70), relabelled, changed))
    assert same == Examples.of(data).fingerprint
    assert same not in others


class Jittered(Dataset):
    """Inputs that a transform changes at random, by every global generator."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.rand(1) + random.random() + np.random.rand(), index % 2  # noqa: NPY002, S311


def test_what_transforms_draw_does_not_change_the_fingerprint_nor_the_generators():
    examples = Examples.of(Jittered())
    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = examples.fingerprint
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    torch.manual_seed(2)
    assert replace(examples).fingerprint == first
