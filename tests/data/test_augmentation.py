from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structured_ensembles.data.augmentation import augment, padding
from structured_ensembles.errors import DataError
from structured_ensembles.options.choices import Augmentation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shifted(image, down, right):
    """The window of a padded image, pixel by pixel."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                if 0 <= i + down < height and 0 <= j + right < width:
                    result[c, i, j] = image[c, i + down, j + right]
    return result


def variants(image, augmentation):
    """Every picture that the augmentation may make of an image."""
    reach = [padding(size) for size in image.shape[1:]]
    crops = [image]
    if augmentation in (Augmentation.CROP, Augmentation.CROP_FLIP):
        crops = [
            shifted(image, down, right)
            for down in range(-reach[0], reach[0] + 1)
            for right in range(-reach[1], reach[1] + 1)
        ]
    if augmentation == Augmentation.CROP:
        return crops
    return [*crops, *(crop.flip(-1) for crop in crops)]


@pytest.mark.parametrize("augmentation", [Augmentation.CROP, Augmentation.FLIP, Augmentation.CROP_FLIP])
def test_each_result_is_one_of_the_variants_and_all_of_them_occur(augmentation):
    image = torch.rand(2, 3, 5, generator=generator(1))
    batch = image.expand(400, -1, -1, -1)
    possible = torch.stack(variants(image, augmentation)).flatten(1)
    results = augment(batch, augmentation, generator()).flatten(1)
    matches = (results.unsqueeze(1) == possible.unsqueeze(0)).all(2)
    assert matches.any(1).all()
    assert matches.any(0).all()


@given(
    count=st.integers(1, 5),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    augmentation=st.sampled_from(list(Augmentation)),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_shape_range_and_seed(count, height, width, augmentation, seed):
    images = torch.rand(count, 3, height, width, generator=generator(seed))
    kept = images.clone()
    result = augment(images, augmentation, generator(seed))
    assert result.shape == images.shape
    assert result.dtype == images.dtype
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(images, kept)
    assert torch.equal(result, augment(images, augmentation, generator(seed)))


def test_images_of_a_batch_are_varied_independently():
    batch = torch.rand(1, 1, 8, 8, generator=generator()).expand(64, -1, -1, -1)
    assert len(augment(batch, Augmentation.CROP_FLIP, generator()).flatten(1).unique(dim=0)) > 8


def test_none_is_the_batch_itself_and_draws_nothing():
    images, source = torch.rand(2, 1, 4, 4), generator()
    before = source.get_state()
    assert augment(images, Augmentation.NONE, source) is images
    assert torch.equal(source.get_state(), before)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    augment(torch.ones(2, 1, 4, 4), Augmentation.CROP_FLIP, generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_padding_is_the_usual_one_for_32():
    assert [padding(size) for size in (1, 8, 28, 32)] == [1, 1, 3, 4]


def test_what_is_no_image_is_refused():
    with pytest.raises(DataError, match=r"augmentation flip.*shape \(7,\).*none"):
        augment(torch.zeros(2, 7), Augmentation.FLIP, generator())
