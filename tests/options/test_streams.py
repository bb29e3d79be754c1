"""The choices of a stream and their limits."""

from __future__ import annotations

import math

import pytest

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import (
    Capacity,
    CrossBlock,
    Exhausted,
    Norms,
    Placement,
    Preset,
    Rule,
    ThresholdOver,
)
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.streams import ContinualSettings, HeadKind, settings


def test_choices_are_named_by_strings():
    chosen = ContinualSettings(
        rule="global", threshold_over="all", capacity="equal", cross_block="trainable", norms="task", head="published"
    )
    assert (chosen.rule, chosen.threshold_over, chosen.capacity) == (Rule.GLOBAL, ThresholdOver.ALL, Capacity.EQUAL)
    assert (chosen.cross_block, chosen.norms, chosen.head) == (CrossBlock.TRAINABLE, Norms.TASK, HeadKind.PUBLISHED)


def test_the_default_forgets_nothing_that_it_could_share():
    default = settings()
    assert (default.cross_block, default.norms, default.exhausted) == (CrossBlock.ZERO, Norms.OWNER, Exhausted.REUSE)
    assert (default.capacity, default.keep, default.head) == (Capacity.GEOMETRIC, 0.5, HeadKind.LINEAR)


def test_published_settings_are_those_of_the_paper():
    published = settings(Preset.PUBLISHED)
    assert (published.rule, published.threshold_over) == (Rule.LOCAL, ThresholdOver.FREE)
    assert (published.cross_block, published.head) == (CrossBlock.FROZEN, HeadKind.PUBLISHED)
    assert (published.training.epochs, published.training.batch_size) == (30, 128)
    assert (published.training.learning_rate, published.training.weight_decay) == (1e-3, 0)
    assert published.search.placement is Placement.BEFORE_NORM
    assert (published.search.epochs, published.search.batch_size, published.search.max_steps) == (10, 64, None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keep": 0.0}, r"keep 0.0 is outside \(0, 1\]"),
        ({"keep": math.nan}, "keep nan"),
        ({"tasks": 0}, "tasks 0 must be at least 1"),
        ({"channels": 0}, "channels 0 must be at least 1"),
        ({"delta": 1.0}, r"delta 1.0 is outside \[0, 1\)"),
        ({"held_out": 1.0}, "held_out 1.0 is outside"),
        ({"rank_batches": 0}, "rank_batches 0 must be at least 1, or none"),
        ({"graph_seconds": -1.0}, "graph_seconds -1.0 must be above 0"),
        ({"rule": "per_cost"}, "rule per_cost is for ensembles"),
        ({"rule": "tapered"}, "rule tapered is for ensembles"),
        ({"search": SearchSettings(diversity={"overlap": 0.1})}, "needs several members, and a task has one"),
        ({"cross_block": "zeros"}, "unknown cross_block 'zeros': did you mean 'zero'"),
    ],
)
def test_values_outside_their_limits_are_refused(wrong, message):
    with pytest.raises(SettingsError, match=message):
        ContinualSettings(**wrong)


def test_all_problems_are_told_at_once():
    with pytest.raises(SettingsError, match=r"keep 2 .*; tasks 0 .*"):
        ContinualSettings(keep=2, tasks=0)
