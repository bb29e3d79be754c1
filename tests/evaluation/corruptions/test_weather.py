from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structured_ensembles.evaluation.corruptions import spatter, weather


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape, dtype=np.float32)


@given(st.sampled_from([2, 4, 8, 16]), st.sampled_from([1.5, 2, 3]))
def test_plasma_against_a_slow_loop(side, decay):
    moves = 2 * noise(2, side, side) - 1
    for one, moved in zip(weather.plasma(moves, decay), moves, strict=True):
        np.testing.assert_allclose(one, slow_plasma(moved, decay), atol=1e-5)


def slow_plasma(moves: np.ndarray, decay: float) -> np.ndarray:
    side = len(moves)
    heights, step, reach = np.zeros((side, side)), side, 1.0

    def displace(row: int, column: int, neighbours: list[tuple[int, int]]) -> None:
        mean = sum(heights[r % side, c % side] for r, c in neighbours) / 4
        heights[row, column] = mean + reach * moves[row, column]

    while step >= 2:
        half = step // 2
        for r in range(half, side, step):
            for c in range(half, side, step):
                displace(r, c, [(r - half, c - half), (r - half, c + half), (r + half, c - half), (r + half, c + half)])
        for r in range(0, side, half):
            for c in range(0, side, half):
                if (r // half + c // half) % 2:
                    displace(r, c, [(r - half, c), (r + half, c), (r, c - half), (r, c + half)])
        step, reach = half, reach / decay**2
    return (heights - heights.min()) / (heights.max() - heights.min())


def test_plasma_of_nothing_is_nothing():
    assert not weather.plasma(np.zeros((1, 8, 8), dtype=np.float32), 2).any()


def test_fog_brightens_the_dark_and_never_exceeds_what_was_brightest(generators):
    images = 0.6 * noise(4, 3, 20, 24)
    foggy = weather.fog(images, generators[:4], 1.5, 1.75)
    assert (foggy.max(axis=(1, 2, 3)) <= images.max(axis=(1, 2, 3)) + 1e-6).all()
    assert foggy.std() < images.std()
    assert not weather.fog(0 * images, generators[:4], 1.5, 1.75).any()


def test_snow_only_brightens(generators):
    images = noise(4, 3, 16, 16)
    assert (weather.snow(images, generators[:4], 0.3, 0.3, 1.25, 0.65, 14, 12, 0.8) >= images - 1e-6).all()


def test_frost_is_pale_blue_on_a_darkened_image(generators):
    iced = weather.frost(np.zeros((4, 3, 32, 32), dtype=np.float32), generators[:4], 0.75, 0.45)
    assert (iced[:, 0] <= iced[:, 1]).all()
    assert (iced[:, 1] <= iced[:, 2]).all()
    assert 0 <= iced.min() < 0.1 < iced.max() <= 0.45
    white = weather.frost(np.ones((1, 3, 8, 8), dtype=np.float32), generators[:1], 0.75, 0)
    np.testing.assert_allclose(white, 0.75)


def test_grey_weighs_the_colours():
    red = np.zeros((1, 3, 2, 2), dtype=np.float32)
    red[:, 0] = 1
    np.testing.assert_allclose(weather.grey(red), np.full((1, 1, 2, 2), 0.299))


def test_mud_covers_with_brown_or_leaves_alone(generators):
    images = np.ones((4, 3, 32, 32), dtype=np.float32)
    muddy = spatter.spatter(images, generators[:4], 0.65, 0.1, 0.5, 0.68, 0.6, 1)
    covered = (muddy < 1).all(axis=1)
    assert 0.02 < covered.mean() < 0.4
    assert (muddy.transpose(0, 2, 3, 1)[~covered] == 1).all()
    darkest = muddy.transpose(0, 2, 3, 1).reshape(-1, 3).min(axis=0)
    assert (darkest >= np.array([63, 42, 20]) / 255 - 1e-5).all()


def test_water_shines_in_turquoise_where_there_are_drops(generators):
    images = np.zeros((4, 3, 32, 32), dtype=np.float32)
    wet = spatter.spatter(images, generators[:4], 0.65, 0.3, 1, 0.69, 0.5, 0)
    assert wet.max() == pytest.approx(0.5 * 238 / 255)
    np.testing.assert_allclose(wet[:, 0] * 238, wet[:, 1] * 175, rtol=1e-5)
    assert 0.1 < (wet > 0).any(axis=1).mean() < 0.6


def test_without_a_drop_nothing_changes(generators):
    images = noise(2, 3, 8, 8)
    for muddy in (0, 1):
        np.testing.assert_array_equal(spatter.spatter(images, generators[:2], 0, 0.01, 1, 0.7, 0.5, muddy), images)


def test_equalising_spreads_levels_by_rank():
    levels = np.array([[3, 3], [4, 9]], dtype=np.uint8)
    assert spatter._equalised(levels).tolist() == [[0, 0], [round(255 / 2), 255]]
    assert spatter._equalised(levels[:1]).tolist() == [[3, 3]]
