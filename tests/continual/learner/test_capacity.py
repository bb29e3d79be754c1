"""Which free channels a task takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structured_ensembles.continual.learner import capacity
from structured_ensembles.continual.learner.capacity import take
from structured_ensembles.continual.learner.ownership import NOBODY, claimed, free
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import Capacity, Exhausted, Rule, ThresholdOver
from structured_ensembles.options.streams import ContinualSettings

LOCAL = ContinualSettings()
GLOBAL = replace(LOCAL, rule=Rule.GLOBAL)
MODES = {
    "local hard": LOCAL,
    "local soft": replace(LOCAL, threshold_over=ThresholdOver.ALL),
    "global hard": GLOBAL,
    "global soft": replace(GLOBAL, threshold_over=ThresholdOver.ALL),
}


def drawn(widths, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(1, width, generator=generator) for name, width in widths.items()}


def nobody(widths):
    return {name: torch.full((width,), NOBODY) for name, width in widths.items()}


def taken(importance, owners, settings, keep):
    kept = take({name: torch.tensor([value]) for name, value in importance.items()}, owners, settings, keep)
    return {name: channels.tolist() for name, channels in kept.items()}


def counts(width, settings, tasks=10):
    """How many channels of one group each task gets."""
    owners, found = nobody({"a": width}), []
    for task in range(tasks):
        channels = take(drawn({"a": width}, task), owners, settings, capacity.share(settings, task))
        owners = claimed(owners, channels, task)
        found.append(len(channels["a"]))
    return found


@pytest.mark.parametrize(
    ("width", "pruned", "published"),
    [
        (32, 0.5, [16, 8, 4, 2, 1, 1, 0, 0, 0, 0]),
        (64, 0.5, [32, 16, 8, 4, 2, 1, 1, 0, 0, 0]),
        (128, 0.5, [64, 32, 16, 8, 4, 2, 1, 1, 0, 0]),
        (256, 0.5, [128, 64, 32, 16, 8, 4, 2, 1, 1, 0]),
        (32, 0.75, [8, 6, 5, 4, 3, 2, 1, 1, 1, 1]),
        (64, 0.75, [16, 12, 9, 7, 5, 4, 3, 2, 2, 1]),
        (128, 0.75, [32, 24, 18, 14, 10, 8, 6, 4, 3, 3]),
        (256, 0.75, [64, 48, 36, 27, 21, 15, 12, 9, 6, 5]),
        (32, 0.9, [4, 3, 3, 3, 2, 2, 2, 2, 2, 1]),
        (64, 0.9, [7, 6, 6, 5, 4, 4, 4, 3, 3, 3]),
        (128, 0.9, [13, 12, 11, 10, 9, 8, 7, 6, 6, 5]),
        (256, 0.9, [26, 23, 21, 19, 17, 15, 14, 13, 11, 10]),
    ],
)
def test_a_task_gets_as_many_channels_as_were_published(width, pruned, published):
    assert counts(width, replace(LOCAL, keep=1 - pruned)) == published


def test_equal_divides_what_there_is():
    equal = replace(LOCAL, capacity=Capacity.EQUAL, tasks=5)
    assert counts(32, equal, 6) == [7, 7, 6, 6, 6, 0]
    assert counts(3, equal, 5) == [1, 1, 1, 0, 0]


def test_fixed_is_a_number_of_channels_of_each_group():
    fixed = replace(GLOBAL, capacity=Capacity.FIXED, channels=3, threshold_over=ThresholdOver.ALL)
    assert counts(8, fixed, 4) == [3, 3, 2, 0]
    importance = {"a": [9.0, 1.0, 8.0, 7.0, 2.0], "b": [0.1, 0.3, 0.2]}
    owners = {"a": torch.tensor([0, -1, -1, -1, -1]), "b": torch.tensor([-1, -1, 0])}
    assert taken(importance, owners, fixed, 0.5) == {"a": [2, 3, 4], "b": [0, 1]}


IMPORTANCE = {"a": [0.9, 0.1, 0.8, 0.2, 0.7], "b": [50.0, 40.0, 30.0, 20.0]}
OWNERS = {"a": torch.tensor([0, -1, -1, -1, 0]), "b": torch.tensor([-1, -1, 0, -1])}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # free: a 0.1 0.8 0.2, b 50 40 20; the middle of three is kept, too
        ("local hard", {"a": [2, 3], "b": [0, 1]}),
        # a: 0.7 is the median of 5; of those above it, 2 is free. b: the median of 4 is 35
        ("local soft", {"a": [2], "b": [0, 1]}),
        # the median of six free values is 10.4: a keeps its largest one all the same
        ("global hard", {"a": [2], "b": [0, 1, 3]}),
        # the median of all nine is 0.9
        ("global soft", {"a": [], "b": [0, 1, 3]}),
    ],
)
def test_masks_of_hand_made_importances(mode, expected):
    assert taken(IMPORTANCE, OWNERS, MODES[mode], 0.5) == expected


@given(
    seed=st.integers(0, 1000),
    keep=st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9]),
    mode=st.sampled_from(sorted(MODES)),
    tasks=st.integers(1, 4),
)
def test_is_the_published_comparison_with_a_quantile(seed, keep, mode, tasks):
    """Against a slow quantile; where that gives a group nothing, it keeps the channel that comes first."""
    widths = {"a": 7, "b": 12, "c": 1}
    owners, settings = nobody(widths), MODES[mode]
    for task in range(tasks):
        importance = {name: value[0].double().numpy() for name, value in drawn(widths, seed + task).items()}
        available = {name: (owner == NOBODY).numpy() for name, owner in owners.items()}
        expected = _by_quantile(importance, available, settings, 1 - keep)
        channels = take({name: torch.tensor(value)[None] for name, value in importance.items()}, owners, settings, keep)
        assert {name: kept.tolist() for name, kept in channels.items()} == expected
        owners = claimed(owners, channels, task)


def _by_quantile(importance, available, settings, pruned):
    everything = settings.threshold_over is ThresholdOver.ALL
    population = {name: np.ones_like(flags) if everything else flags for name, flags in available.items()}
    together = np.concatenate([importance[name][flags] for name, flags in population.items()])
    found = {}
    for name, values in importance.items():
        among = values[population[name]]
        if len(among) == 0:
            found[name] = []
            continue
        threshold = np.quantile(together if settings.rule is Rule.GLOBAL else among, pruned) - 1e-12
        kept = (values >= min(threshold, among.max())) & available[name]
        found[name] = np.flatnonzero(kept).tolist()
    return found


def test_equal_importances_keep_the_share_all_the_same():
    assert taken({"a": [1.0] * 8}, nobody({"a": 8}), LOCAL, 0.5) == {"a": [0, 1, 2, 3]}


def test_a_group_with_one_free_channel_and_one_with_none():
    owners = {"a": torch.tensor([0, 0, -1]), "b": torch.tensor([0, 1])}
    for settings in (LOCAL, GLOBAL):
        assert taken({"a": [5.0, 4.0, 1e-9], "b": [9.0, 9.0]}, owners, settings, 0.1) == {"a": [2], "b": []}
    assert taken({}, {"a": torch.tensor([0]), "b": torch.tensor([0])}, LOCAL, 0.5) == {"a": [], "b": []}


def test_the_first_task_never_leaves_a_group_without_a_channel():
    importance = {"small": [1e-6, 2e-6, 3e-6], "large": [1.0, 2.0, 3.0, 4.0]}
    for settings in MODES.values():
        assert taken(importance, nobody({"small": 3, "large": 4}), settings, 0.3)["small"] == [2]


@given(seed=st.integers(0, 1000), mode=st.sampled_from(sorted(MODES)))
def test_nobody_loses_a_channel(seed, mode):
    widths = {"a": 5, "b": 9}
    owners = nobody(widths)
    for task in range(4):
        channels = take(drawn(widths, seed + task), owners, MODES[mode], 0.5)
        assert all(set(kept.tolist()) <= set(free(owners)[name].tolist()) for name, kept in channels.items())
        owners = claimed(owners, channels, task)


def test_what_is_left_and_what_is_said_of_it():
    owners = {"a": torch.tensor([0, -1, -1, 1]), "b": torch.tensor([0, 1])}
    assert capacity.left(owners) == {"a": 0.5, "b": 0}
    assert not capacity.exhausted(owners)
    assert capacity.exhausted({"b": owners["b"]})
    some, none = torch.tensor([1]), torch.tensor([], dtype=torch.int64)
    assert capacity.notice({"a": some, "b": some}, owners, "x") is None
    assert "'x' gets no channels of its own in 1 of 2 groups" in capacity.notice({"a": some, "b": none}, owners, "x")
    assert "(no free one is important enough)" in capacity.notice({"a": none, "b": none}, owners, "x")
    assert "(none is free)" in capacity.notice({"b": none}, {"b": owners["b"]}, "x")


def test_when_nothing_is_left_the_settings_decide():
    capacity.refuse_exhausted(LOCAL, "x", 3)
    with pytest.raises(
        SettingsError, match=r"no channel is left for task 'x' after 3 tasks: take a smaller keep \(now"
    ):
        capacity.refuse_exhausted(replace(LOCAL, exhausted=Exhausted.ERROR), "x", 3)


@pytest.mark.parametrize("mode", MODES)
def test_where_nothing_is_free_there_is_nothing_to_take_and_no_importance_to_read(mode):
    owners = {"a": torch.zeros(3, dtype=torch.int64), "b": torch.tensor([0, 1])}
    assert {name: len(channels) for name, channels in take({}, owners, MODES[mode], 0.5).items()} == {"a": 0, "b": 0}
