from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
from PIL import Image

from structured_ensembles.evaluation.corruptions import digital
from structured_ensembles.evaluation.corruptions.kinds import corrupt

COLOURS = np.random.default_rng(1).random((2, 3, 5, 6), dtype=np.float32)
SPECIAL = np.array([[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 0.2, 0.2]], dtype=np.float32)
PIXELS = np.concatenate([COLOURS.transpose(0, 2, 3, 1).reshape(-1, 3), SPECIAL]).T[None, :, None]


def by_hsv(images: np.ndarray, change) -> np.ndarray:
    """Pixel by pixel, with the standard library."""
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*rgb))) for rgb in images[0, :, 0].T.tolist()]
    return np.array(pixels).T[None, :, None]


def test_brightness_against_hue_saturation_value():
    expected = by_hsv(PIXELS, lambda h, s, v: (h, s, min(v + 0.3, 1)))
    np.testing.assert_allclose(digital.brightness(PIXELS, [], 0.3), expected, atol=1e-6)


@pytest.mark.parametrize(("factor", "more"), [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)])
def test_saturation_against_hue_saturation_value(factor, more):
    expected = by_hsv(PIXELS, lambda h, s, v: (h, min(s * factor + more, 1), v))
    np.testing.assert_allclose(digital.saturate(PIXELS, [], factor, more), expected, atol=1e-6)


def test_contrast_keeps_each_channels_mean():
    changed = digital.contrast(COLOURS, [], 0.4)
    np.testing.assert_allclose(changed.mean(axis=(2, 3)), COLOURS.mean(axis=(2, 3)), atol=1e-6)
    np.testing.assert_allclose(changed.std(axis=(2, 3)), 0.4 * COLOURS.std(axis=(2, 3)), atol=1e-6)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_jpeg_is_what_pillow_stores(channels, mode, scenes):
    image = scenes[:1, :channels]
    picture, stored = Image.fromarray(np.moveaxis(image[0], 0, -1).squeeze()), io.BytesIO()
    assert picture.mode == mode
    picture.save(stored, "JPEG", quality=58)
    expected = np.asarray(Image.open(stored)).reshape(32, 32, channels).transpose(2, 0, 1)
    np.testing.assert_array_equal(corrupt(image, "jpeg_compression", 3)[0], expected)


def test_pixels_of_boxes_that_fit_are_their_means():
    image = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8) * 4 / 255
    means = image.reshape(1, 1, 4, 2, 4, 2).mean(axis=(3, 5)).repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_allclose(digital.pixelate(image, [], 0.5), means, atol=0.51 / 255)


def test_pixelate_keeps_height_and_width_apart():
    assert digital.pixelate(np.zeros((2, 3, 8, 14), dtype=np.float32), [], 0.65).shape == (2, 3, 8, 14)


def test_an_elastic_image_that_is_not_pulled_stays(generators):
    np.testing.assert_allclose(digital.elastic_transform(COLOURS, generators[:2], 0, 0, 0), COLOURS, atol=1e-6)


def test_slanting_moves_three_points_where_they_were_told_to():
    rows, columns = np.meshgrid(np.arange(31.0), np.arange(31.0), indexing="ij")
    slanted = digital._slanted(np.stack([rows, columns]), np.random.default_rng(3), 2)
    steps = np.random.default_rng(3).uniform(-2, 2, (3, 2))
    for point, step in zip(np.array([[25, 25], [5, 25], [5, 5]]), steps, strict=True):
        # linear interpolation of a ramp is exact: each pixel says where it came from
        found = _at(slanted, point + step)
        np.testing.assert_allclose(found, point, atol=1e-6)


def _at(image: np.ndarray, point: np.ndarray) -> list[float]:
    row, column = np.floor(point).astype(int)
    down, right = point - np.floor(point)
    corner = image[:, row : row + 2, column : column + 2]
    weights = np.outer([1 - down, down], [1 - right, right])
    return (corner * weights).sum(axis=(1, 2)).tolist()
