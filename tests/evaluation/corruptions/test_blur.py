from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from structured_ensembles.evaluation.corruptions import blur
from structured_ensembles.evaluation.corruptions.constants import CONSTANTS
from structured_ensembles.evaluation.corruptions.geometry import clipped_zoom, smear

BLURS = [blur.defocus_blur, blur.glass_blur, blur.motion_blur, blur.zoom_blur, blur.gaussian_blur]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape, dtype=np.float32)


@pytest.mark.parametrize("function", BLURS)
@pytest.mark.parametrize("severity", range(5))
def test_a_blur_of_one_colour_is_that_colour(function, severity, generators):
    plain = np.full((2, 3, 9, 11), 0.3, dtype=np.float32)
    changed = function(plain, generators[:2], *CONSTANTS[function.__name__][severity])
    np.testing.assert_allclose(changed, plain, atol=1e-6)


def test_glass_blur_copies_neighbours_as_the_slow_loop_does():
    images, reach = noise(2, 3, 9, 10), 1
    moved = blur._move(images, [np.random.default_rng(seed) for seed in range(2)], reach)
    for image, one, seed in zip(images.copy(), moved, range(2), strict=True):
        steps = np.random.default_rng(seed).integers(-reach, reach, (2, 7, 8))
        for row in range(9 - reach, reach, -1):
            for column in range(10 - reach, reach, -1):
                down, right = steps[:, row - reach - 1, column - reach - 1]
                image[:, row, column] = image[:, row + down, column + right]
        np.testing.assert_array_equal(one, image)


def test_the_kernels_of_a_lens_out_of_focus():
    point = np.zeros((1, 1, 9, 9), dtype=np.float32)
    point[0, 0, 4, 4] = 1
    plus = blur.defocus_blur(point, [], 1, 0.01)[0, 0]
    expected = np.zeros((9, 9))
    expected[4, 3:6] = expected[3:6, 4] = 1 / 5
    np.testing.assert_allclose(plus, expected, atol=1e-6)
    square = blur.defocus_blur(point, [], 1.5, 0.01)[0, 0]
    np.testing.assert_allclose(square[3:6, 3:6], 1 / 9, atol=1e-6)
    rim = math.exp(-0.5 / 0.4**2)
    soft = blur.defocus_blur(point, [], 0.3, 0.4)[0, 0, 4]
    np.testing.assert_allclose(soft[3:6], np.array([rim, 1, rim]) / (1 + 2 * rim) ** 2, atol=1e-6)


@pytest.mark.parametrize(("angle", "step"), [(0, (0, 1)), (90, (1, 0)), (-90, (-1, 0)), (45, (0.7071, 0.7071))])
def test_smearing_is_a_weighted_sum_along_a_line(angle, step):
    image, radius, sigma = noise(2, 6, 7), 2, 1.5
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    slow = np.zeros_like(image)
    for row in range(6):
        for column in range(7):
            for i, weight in enumerate(weights):
                at = (min(max(row + round(i * step[0]), 0), 5), min(max(column + round(i * step[1]), 0), 6))
                slow[:, row, column] += weight / sum(weights) * image[:, at[0], at[1]]
    np.testing.assert_allclose(smear(image[None], [angle], radius, sigma)[0], slow, atol=1e-6)


@given(st.integers(8, 40), st.sampled_from([1, 1.01, 1.05, 1.1, 1.25, 1.75, 2.25]))
@settings(max_examples=60)
def test_enlarging_against_scipy(side, factor):
    image = noise(1, 1, side, side)
    cropped = math.ceil(side / factor)
    top = (side - cropped) // 2
    large = ndimage.zoom(image[0, 0, top : top + cropped, top : top + cropped], factor, order=1, mode="nearest")
    trim = (len(large) - side) // 2
    expected = large[trim : trim + side, trim : trim + side]
    np.testing.assert_allclose(clipped_zoom(image, factor)[0, 0], expected, atol=1e-5)


def test_zoom_blur_counts_the_image_twice():
    image = noise(1, 1, 16, 16)
    expected = (2 * image + clipped_zoom(image, 1.01) + clipped_zoom(image, 1.02)) / 4
    np.testing.assert_allclose(blur.zoom_blur(image, [], 3), expected, atol=1e-6)
