"""Forms by name: what a file may ask for, and what it gets."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.implicit import Form, make
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.options.catalogue import FORMS
from structured_ensembles.seeding import seeded

SPEC = NetworkSpec("small_cnn", (1, 8, 8), 3)


@pytest.mark.parametrize(
    "form", [Form("rank_one"), Form("dropout", {"output": "network.10", "probability": 0.5, "seed": 3})]
)
def test_a_form_survives_json(form: Form) -> None:
    assert Form.from_json(json.loads(json.dumps(form.to_json()))) == form


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"name": "rank_one"},
        {"name": 3, "arguments": {}},
        {"name": "rank_one", "arguments": {}, "more": 1},
        {"name": "rank_one", "arguments": {"a": [1]}},
        {"name": "rank_two", "arguments": {}},
    ],
)
def test_what_is_no_form_is_refused(value: object) -> None:
    with pytest.raises(SettingsError):
        Form.from_json(value)


def test_the_nearest_form_is_proposed() -> None:
    with pytest.raises(SettingsError, match="did you mean 'rank_one'"):
        Form("rank_on")


@pytest.mark.parametrize("members", [0, 1025, 2**40])
def test_numbers_of_answers_have_limits(members: int) -> None:
    with pytest.raises(SettingsError, match="from 1 to 1024"):
        make(SPEC, Form("rank_one"), members)


def test_the_same_seed_makes_the_same_network() -> None:
    states = []
    for state in (5, 5, 6):
        with seeded(state):
            states.append(make(SPEC, Form("rank_one"), 3).state_dict())
    first, second, other = states
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_mimo_needs_an_architecture_by_name() -> None:
    assert "mimo" in FORMS
    with pytest.raises(NetworkError, match="give a NetworkSpec"):
        make(lambda: nn.Linear(2, 2), Form("mimo"), 2)
