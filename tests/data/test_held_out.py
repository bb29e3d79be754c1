"""What is held out: a share of each class, by the seed, and what cannot be divided."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    TensorDataset,
)

from structured_ensembles.data.batches import split_held_out
from structured_ensembles.data.labels import labels_of
from structured_ensembles.errors import DataError, SettingsError


def tensors(count=10, classes=3):
    return TensorDataset(torch.arange(count, dtype=torch.float32).unsqueeze(1), torch.arange(count) % classes)


@given(
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(lambda c: max(c) >= 2),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60)
def test_a_split_is_a_stratified_partition(counts, share, seed):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    data = TensorDataset(labels.unsqueeze(1).float(), labels)
    train, held_out = split_held_out(data, share, seed)
    assert sorted([*train.indices, *held_out.indices]) == list(range(len(labels)))
    assert len(held_out) >= 1
    kept_back = torch.bincount(labels_of(held_out), minlength=len(counts)).tolist()
    for count, held in zip(counts, kept_back, strict=True):
        assert count == held == 0 or held <= count - 1
        assert held <= share * count + 1
        assert held >= min(int(share * count), count - 1)
    assert len(held_out) <= max(1, round(share * len(labels)))


def test_small_classes_give_their_share_together():
    data = tensors(count=40, classes=10)
    _, held_out = split_held_out(data, 0.1, 0)
    assert len(held_out) == 4


def test_the_seed_decides_the_split():
    data = tensors(30)
    assert split_held_out(data, 0.2, 1)[1].indices == split_held_out(data, 0.2, 1)[1].indices
    assert split_held_out(data, 0.2, 1)[1].indices != split_held_out(data, 0.2, 2)[1].indices


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_its_limits_is_refused(share):
    with pytest.raises(SettingsError, match=r"outside \(0, 1\)"):
        split_held_out(tensors(), share, 0)


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_examples_are_refused(count):
    with pytest.raises(DataError, match=f"{count} examples are too few"):
        split_held_out(tensors(count, classes=3), 0.5, 0)


def test_of_many_small_classes_chance_decides_which_are_held_out() -> None:
    labels = torch.arange(500) % 100
    data = TensorDataset(torch.zeros(500, 1), labels)
    found = [{int(labels[i]) for i in split_held_out(data, 0.1, seed)[1].indices} for seed in range(3)]
    assert [len(classes) for classes in found] == [50, 50, 50]
    assert found[0] != found[1] != found[2]
    assert all(max(classes) >= 90 for classes in found)
    assert split_held_out(data, 0.1, 0)[1].indices == split_held_out(data, 0.1, 0, labels)[1].indices
