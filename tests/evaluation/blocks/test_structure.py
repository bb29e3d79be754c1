from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from structured_ensembles.artefact.file import Record
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.blocks.structure import Layer, Structure, agreement, structure
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.types import Cut, Group, Side


def group(name: str, channels: int) -> Group:
    return Group(name, channels, (Cut(name, Side.OUT),), private=True)


def ensemble(*channels: dict[str, list[int]], groups: tuple[Group, ...] = (), members: int = 0) -> Ensemble:
    """Members whose networks do not matter."""
    count = members or len(channels)
    kept = tuple({name: torch.tensor(index) for name, index in member.items()} for member in channels)
    record = Record("structured", count, ("a", "b"), (3,), Combine.PROBABILITIES, None, groups, kept)
    return Ensemble([nn.Linear(3, 2) for _ in range(count)], record)


VOTES = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 1]])


def test_widths_and_overlaps_are_told_by_layer():
    groups = (group("stem", 6), group("block.conv", 4), group("late", 3))
    members = {"stem": [0, 1, 2], "block.conv": [3]}, {"stem": [2, 3], "block.conv": [0, 1], "late": [0]}
    found = structure(ensemble(*members, groups=groups), VOTES)

    assert found == Structure(
        agreement=((1.0, 2 / 4), (2 / 4, 1.0)),
        layers=(
            Layer("stem", 6, (3, 2), ((1.0, 1 / 4), (1 / 4, 1.0))),
            Layer("block.conv", 4, (1, 2), ((1.0, 0.0), (0.0, 1.0))),
            Layer("late", 3, (3, 1), ((1.0, 1 / 3), (1 / 3, 1.0))),  # the first member does not name it: whole
        ),
    )


def test_it_is_the_part_of_the_schema():
    found = structure(ensemble({"stem": [0]}, {"stem": [0, 1]}, groups=(group("stem", 2),)), VOTES)
    assert json.loads(json.dumps(asdict(found), allow_nan=False)) == {
        "agreement": [[1, 0.5], [0.5, 1]],
        "layers": [{"layer": "stem", "base": 2, "widths": [1, 2], "overlap": [[1, 0.5], [0.5, 1]]}],
    }


def test_members_that_were_not_cut_have_no_layers():
    assert structure(ensemble(members=2), VOTES).layers is None
    assert structure(ensemble(members=2, groups=(group("stem", 6),)), VOTES).layers is None
    assert structure(ensemble({}, {}), VOTES).layers is None  # nothing of the network can be cut


def test_one_network_that_answers_several_times_has_as_many_rows():
    shared = ensemble(members=2)
    del shared.members[1]
    assert structure(shared, VOTES).agreement == ((1, 0.5), (0.5, 1))


@st.composite
def kept_channels(draw) -> tuple[int, list[list[int]]]:
    """A width and the channels of some members."""
    channels = draw(st.integers(1, 12))
    subset = st.sets(st.integers(0, channels - 1), min_size=1).map(sorted)
    return channels, draw(st.lists(subset, min_size=1, max_size=5))


@given(kept_channels())
def test_overlap_is_intersection_over_union_of_sets(case):
    channels, members = case
    votes = torch.zeros(len(members), 1, dtype=torch.int64)
    found = structure(ensemble(*({"x": kept} for kept in members), groups=(group("x", channels),)), votes)

    layer = found.layers[0]
    assert (layer.base, layer.widths) == (channels, tuple(len(kept) for kept in members))
    for one, row in zip(members, layer.overlap, strict=True):
        for other, value in zip(members, row, strict=True):
            assert value == len(set(one) & set(other)) / len(set(one) | set(other))


@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 1000))
def test_agreement_is_counted_example_by_example(members, examples, seed):
    votes = torch.randint(3, (members, examples), generator=torch.Generator().manual_seed(seed))
    expected = [
        [sum(int(x == y) for x, y in zip(one, other, strict=True)) / examples for other in votes.tolist()]
        for one in votes.tolist()
    ]
    assert [list(row) for row in agreement(votes)] == expected
    assert all(agreement(votes)[m][m] == 1 for m in range(members))


@pytest.mark.parametrize("shape", [(3, 4), (2, 0), (2,), (2, 4, 1)])
def test_votes_of_other_members_are_refused(shape):
    with pytest.raises(DataError, match=r"votes of shape \(.*pass \(2 members, examples\), one example"):
        structure(ensemble(members=2), torch.zeros(shape, dtype=torch.int64))


def test_an_ensemble_without_members_is_refused():
    with pytest.raises(SettingsError, match="call fit"):
        structure(Ensemble(), VOTES)
