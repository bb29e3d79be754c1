from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.corruptions.constants import CONSTANTS
from structured_ensembles.evaluation.corruptions.kinds import KINDS, SEVERITIES, STANDARD, corrupt

SIDES, SEEDS = st.integers(8, 21), st.integers(0, 2**40)
DETERMINISTIC = {
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate"
}  # fmt: skip
GROWING = [
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "defocus_blur", "gaussian_blur", "zoom_blur",
    "snow", "fog", "brightness", "contrast", "pixelate", "jpeg_compression"
]  # fmt: skip


def draw(count: int, channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, height, width), dtype=np.uint8)


@given(st.sampled_from(KINDS), st.sampled_from(SEVERITIES), st.sampled_from([1, 3]), SIDES, SIDES, SEEDS)
@settings(max_examples=150)
def test_an_image_depends_on_its_index_and_not_on_its_batch(kind, severity, channels, height, width, seed):
    images = draw(3, channels, height, width, seed)
    before = images.copy()
    together = corrupt(images, kind, severity, seed, first=5)
    alone = [corrupt(images[i : i + 1], kind, severity, seed, first=5 + i) for i in range(3)]
    assert together.shape == images.shape
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(together, np.concatenate(alone))
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("kind", KINDS)
def test_index_and_seed_matter_where_there_is_chance(kind, scenes):
    same = np.repeat(scenes[:1], 6, axis=0)
    here, there = corrupt(same, kind, 3, seed=1), corrupt(same, kind, 3, seed=2)
    assert (here != there).any() == (kind not in DETERMINISTIC)
    assert (here != here[:1]).any() == (kind not in DETERMINISTIC)


def test_many_images_are_numbered_through():
    images = draw(600, 1, 8, 8)
    np.testing.assert_array_equal(
        corrupt(images, "shot_noise", 5)[590:], corrupt(images[590:], "shot_noise", 5, first=590)
    )


@pytest.mark.parametrize("kind", GROWING)
def test_severity_takes_images_farther_away(kind, scenes):
    distances = [np.abs(corrupt(scenes, kind, level).astype(float) - scenes).mean() for level in SEVERITIES]
    assert distances == sorted(distances)
    assert 0 < distances[0] < distances[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_severity_of_every_kind_changes_something_but_not_everything(kind, scenes):
    for level in SEVERITIES:
        distance = np.abs(corrupt(scenes, kind, level).astype(float) - scenes).mean()
        assert 0 < distance < 100, level


@pytest.mark.parametrize("kind", sorted(DETERMINISTIC - {"saturate", "jpeg_compression"}))
def test_a_grey_image_becomes_what_it_would_in_colour(kind):
    grey = draw(2, 1, 12, 10)
    coloured = corrupt(grey.repeat(3, axis=1), kind, 4)
    np.testing.assert_array_equal(corrupt(grey, kind, 4).repeat(3, axis=1), coloured)


def test_the_global_generator_is_left_alone(scenes):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for kind in KINDS:
        corrupt(scenes[:1], kind, 1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_15_kinds_are_standard_and_4_are_extra():
    assert len(STANDARD) == 15
    assert tuple(CONSTANTS) == KINDS
    assert set(KINDS) - set(STANDARD) == {"speckle_noise", "gaussian_blur", "spatter", "saturate"}
    assert all(len(levels) == 5 for levels in CONSTANTS.values())


def test_constants_are_those_of_cifar_10_c_and_not_of_imagenet_c():
    first = {
        "gaussian_noise": [0.04, 0.06, 0.08, 0.09, 0.10],
        "shot_noise": [500, 250, 100, 75, 50],
        "impulse_noise": [0.01, 0.02, 0.03, 0.05, 0.07],
        "speckle_noise": [0.06, 0.1, 0.12, 0.16, 0.2],
        "gaussian_blur": [0.4, 0.6, 0.7, 0.8, 1],
        "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
        "brightness": [0.05, 0.1, 0.15, 0.2, 0.3],
        "jpeg_compression": [80, 65, 58, 50, 40],
        "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
    }
    assert {kind: [level[0] for level in CONSTANTS[kind]] for kind in first} == first
    assert CONSTANTS["fog"] == ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
    assert CONSTANTS["motion_blur"] == ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
    assert CONSTANTS["snow"][4] == (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)
    assert [CONSTANTS["elastic_transform"][4][i] * 32 for i in range(3)] == pytest.approx([3.2, 0.96, 0.96])


def test_steps_of_zoom_blur_are_those_of_cifar_10_c():
    ends = (1.06, 1.11, 1.16, 1.21, 1.26)  # and numpy.arange, whose rounding lets two ends in
    assert [levels[0] for levels in CONSTANTS["zoom_blur"]] == [len(np.arange(1, end, 0.01)) for end in ends]


@pytest.mark.parametrize(
    ("kind", "severity", "seed", "message"),
    [
        ("fogg", 1, 0, "unknown corruption 'fogg': did you mean 'fog'"),
        ("fog", 0, 0, "severity 0: severities go from 1 to 5"),
        ("fog", 6, 0, "severity 6"),
        ("fog", 1, -1, "seed -1 is negative"),
    ],
)
def test_a_choice_that_is_none(kind, severity, seed, message):
    with pytest.raises(SettingsError, match=message):
        corrupt(draw(1, 1, 8, 8), kind, severity, seed)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (draw(1, 4, 8, 8), "1 or 3 channels"),
        (draw(1, 1, 8, 8).astype(np.float32), "type float32"),
        (draw(1, 1, 8, 8)[0], r"shape \(1, 8, 8\)"),
        (draw(1, 1, 8, 8)[:0], r"shape \(0, 1, 8, 8\)"),
        (draw(1, 1, 9, 7), "images of 9x7 pixels: corruptions need 8x8 or more"),
    ],
)
def test_images_that_cannot_be_corrupted(images, message):
    with pytest.raises(DataError, match=message):
        corrupt(images, "fog", 1)
