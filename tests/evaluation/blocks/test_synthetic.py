from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from structured_ensembles.data.sources import load
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.blocks.synthetic import SETS, constant, shuffled_patches, uniform_noise

BYTES = torch.randint(0, 256, (5, 3, 9, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MAKERS = pytest.mark.parametrize("make", SETS.values(), ids=SETS)


def numbered(*shape):
    """Images in which every pixel has a number of its own."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


@MAKERS
@pytest.mark.parametrize("images", [BYTES, BYTES / 255, BYTES[:1, :1].double() / 255], ids=["bytes", "floats", "wide"])
def test_a_set_looks_like_its_images_to_a_network(make, images):
    before = images.clone()
    made = make(images, 3)
    assert made.shape == images.shape
    assert made.dtype == images.dtype
    assert made.is_contiguous()
    assert 0 <= made.min() <= made.max() <= (255 if images.dtype == torch.uint8 else 1)
    assert not torch.equal(made, images)
    assert torch.equal(images, before)


@MAKERS
def test_a_seed_decides_everything_and_the_global_generator_is_left_alone(make):
    state = torch.get_rng_state()
    made = make(BYTES, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(make(BYTES, 3), made)
    assert not torch.equal(make(BYTES, 4), made)


@MAKERS
def test_every_image_is_another(make):
    made = make(BYTES[:1].expand(5, -1, -1, -1), 0)
    assert len(torch.unique(made.flatten(1), dim=0)) == 5


@pytest.mark.parametrize("images", [BYTES.repeat(20, 1, 1, 1), BYTES.repeat(20, 1, 1, 1) / 255])
def test_noise_is_uniform(images):
    made = uniform_noise(images, 0).double() / (255 if images.dtype == torch.uint8 else 1)
    assert made.mean() == pytest.approx(1 / 2, abs=0.01)
    assert made.var() == pytest.approx(1 / 12, abs=0.01)


def test_a_constant_image_has_one_colour():
    made = constant(BYTES, 0)
    assert torch.equal(made, made[..., :1, :1].expand_as(made))
    assert len(torch.unique(made[:, :, 0, 0])) > 10  # of 15 values


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(1, 33), st.integers(1, 33)),
    seed=st.integers(0, 10**6),
)
def test_patches_are_moved_whole_and_none_is_lost(shape, seed):
    images = numbered(*shape)
    made = shuffled_patches(images, seed)
    high, wide = max(shape[2] // 4, 1), max(shape[3] // 4, 1)
    for image, one in zip(images, made, strict=True):
        assert sorted(pieces(one, high, wide)) == sorted(pieces(image, high, wide))
    left = (shape[2] // high * high, shape[3] // wide * wide)
    assert torch.equal(made[:, :, left[0] :], images[:, :, left[0] :])
    assert torch.equal(made[..., left[1] :], images[..., left[1] :])


def pieces(image, high, wide):
    _, height, width = image.shape
    corners = [(y, x) for y in range(0, height - high + 1, high) for x in range(0, width - wide + 1, wide)]
    return [image[:, y : y + high, x : x + wide].flatten().tolist() for y, x in corners]


@pytest.mark.parametrize("side", [4, 8, 28, 32, 33])
def test_most_patches_change_places(side):
    images = numbered(10, 3, side, side)
    high = side // 4
    moved = [a != b for one in range(10) for a, b in zip(*both(images[one], images, one, high), strict=True)]
    assert sum(moved) / len(moved) > 0.85  # 15 in 16 on average


def both(image, images, one, high):
    return pieces(image, high, high), pieces(shuffled_patches(images, 0)[one], high, high)


def test_an_image_of_one_pixel_stays():
    assert torch.equal(shuffled_patches(BYTES[..., :1, :1], 0), BYTES[..., :1, :1])


@MAKERS
def test_the_digits_work(make):
    images = load("digits").test.images
    assert make(images, 0).shape == images.shape


@MAKERS
def test_bad_input_is_refused(make):
    with pytest.raises(DataError, match=r"images of shape \(0, 3, 9, 14\): pass \(N, C, H, W\), with one image"):
        make(BYTES[:0], 0)
    with pytest.raises(DataError, match=r"images of shape \(3, 9, 14\)"):
        make(BYTES[0], 0)
    with pytest.raises(DataError, match=r"images are torch.int64: pass uint8"):
        make(BYTES.long(), 0)
    with pytest.raises(SettingsError, match="seed -1 is negative"):
        make(BYTES, -1)
