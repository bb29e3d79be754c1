from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch.utils.data import DataLoader, Subset

from structured_ensembles.data.sources import ImageData, Split, mean_and_std
from structured_ensembles.data.sources.records import divide
from structured_ensembles.errors import DataError


def random_split(count: int = 12, channels: int = 3, *, floats: bool = False) -> Split:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, channels, 5, 4), generator=generator, dtype=torch.uint8)
    return Split(images.float() / 255 if floats else images, torch.arange(count) % 3)


@pytest.mark.parametrize("floats", [False, True])
def test_a_dataset_gives_pixels_in_unit_range_and_int_labels(floats):
    split = random_split(floats=floats)
    for i, (pixels, label) in enumerate(split):
        assert pixels.dtype == torch.float32
        expected = split.images[i] if floats else split.images[i].float() / 255
        assert torch.equal(pixels, expected)
        assert type(label) is int
        assert label == split.labels[i]
        if i == len(split) - 1:
            break


def test_batches_equal_single_items():
    split = random_split(13)
    loader = DataLoader(Subset(split, [12, 3, 3, 0, 7]), batch_size=2)
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(images, split.images[[12, 3, 3, 0, 7]].float() / 255)
    assert torch.equal(labels, split.labels[[12, 3, 3, 0, 7]])
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("floats", [False, True])
def test_mean_and_std_agree_with_torch_beyond_one_chunk(floats):
    split = random_split(2500, floats=floats)
    pixels = split.images.double() / (1 if floats else 255)
    mean, std = mean_and_std(split)
    assert mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-6)
    assert std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-6)
    assert all(value == round(value, 6) for value in mean + std)


def test_a_constant_channel_has_the_deviation_of_one_grey_level():
    images = torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)
    assert mean_and_std(Split(images, torch.tensor([0, 1, 0]))) == ((51 / 255,), (round(1 / 255, 6),))


def test_input_shape_is_channels_height_width():
    split = random_split()
    assert ImageData("x", split, split, ("a", "b", "c")).input_shape == (3, 5, 4)


@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=6), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**31)
)
def test_divide_keeps_every_image_once_and_the_share_of_each_class(counts, share, seed):
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    images = torch.arange(len(labels)).view(-1, 1, 1, 1)
    first, second = divide(Split(images, labels), share, seed)
    assert sorted(torch.cat([first.images, second.images]).flatten().tolist()) == list(range(len(labels)))
    for label, count in enumerate(counts):
        taken = int((second.labels == label).sum())
        assert 1 <= taken < count
        assert abs(taken - share * count) <= 1
    assert torch.equal(labels[second.images.flatten()], second.labels)


def test_divide_is_decided_by_the_seed_and_leaves_the_global_generator():
    split = random_split(60)
    state = torch.random.get_rng_state()
    again, other = divide(split, 0.25, 7)[1], divide(split, 0.25, 8)[1]
    assert torch.equal(divide(split, 0.25, 7)[1].images, again.images)
    assert not torch.equal(other.images, again.images)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_divide_refuses_a_class_of_one_image():
    with pytest.raises(DataError, match="class 2 has one image only"):
        divide(Split(torch.zeros(5, 1, 2, 2), torch.tensor([0, 0, 1, 1, 2])), 0.2, 0)
