from __future__ import annotations

import numpy as np
import pytest

from structured_ensembles.evaluation.corruptions import noise

GREY = np.full((40, 3, 32, 32), 0.4, dtype=np.float32)


def test_gaussian_noise_has_its_deviation(generators):
    added = noise.gaussian_noise(GREY, generators, 0.1) - GREY
    assert added.mean() == pytest.approx(0, abs=0.002)
    assert added.std() == pytest.approx(0.1, rel=0.02)


def test_shot_noise_keeps_the_mean_and_has_a_variance_that_falls_with_the_light(generators):
    changed = noise.shot_noise(GREY, generators, 50)
    assert changed.mean() == pytest.approx(0.4, rel=0.01)
    assert changed.var() == pytest.approx(0.4 / 50, rel=0.03)


def test_impulse_noise_changes_a_share_half_of_it_to_white(generators):
    changed = noise.impulse_noise(GREY, generators, 0.07)
    assert set(np.unique(changed)) == {np.float32(0), np.float32(0.4), np.float32(1)}
    assert (changed != GREY).mean() == pytest.approx(0.07, rel=0.05)
    assert (changed == 1).mean() == pytest.approx(0.035, rel=0.07)


def test_speckle_noise_grows_with_the_pixel(generators):
    assert (noise.speckle_noise(GREY, generators, 0.2) - GREY).std() == pytest.approx(0.4 * 0.2, rel=0.02)
    assert not noise.speckle_noise(np.zeros_like(GREY), generators, 0.2).any()
