from __future__ import annotations

import copy
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structured_ensembles.errors import SettingsError, StructensError
from structured_ensembles.networks import NetworkSpec

GOOD = NetworkSpec("resnet20", (3, 32, 32), 10, {"shortcut": "pad"}, (0.5, 0.5, 0.5), (0.2, 0.2, 0.3)).to_json()

texts = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
finite = scalars.filter(lambda value: not isinstance(value, float) or math.isfinite(value))
anything = st.recursive(
    scalars | st.integers() | st.just(math.nan) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def specs(draw):
    channels = draw(st.integers(1, 4))
    numbers = st.lists(st.floats(1e-6, 1e6), min_size=channels, max_size=channels).map(tuple)
    statistics = {"mean": draw(numbers), "std": draw(numbers)} if draw(st.booleans()) else {}
    shape = (channels, draw(st.integers(1, 4096)), draw(st.integers(1, 4096)))
    arguments = draw(st.dictionaries(texts, finite, max_size=4))
    return NetworkSpec(draw(texts), shape, draw(st.integers(1, 100_000)), arguments, **statistics)


@given(specs())
def test_written_and_read_again_a_spec_is_the_same(spec):
    again = NetworkSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False)))
    assert again == spec
    assert again.to_json() == spec.to_json()


@given(anything)
def test_junk_is_refused_by_our_own_error(value):
    with pytest.raises(SettingsError):
        NetworkSpec.from_json(value)


@given(st.sampled_from(sorted(GOOD)), anything)
def test_one_wrong_value_is_refused_or_gives_a_valid_spec(key, value):
    try:
        spec = NetworkSpec.from_json(GOOD | {key: value})
    except StructensError:
        return
    assert NetworkSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False))) == spec


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", "", "name must be a printable text of 1 to 200 characters"),
        ("name", "a\nb", "name must be a printable text"),
        ("name", 7, "name must be a printable text"),
        ("classes", 0, "classes must be a whole number from 1 to 100000, not 0"),
        ("classes", 10.0, "classes must be a whole number from 1 to 100000, not 10.0"),
        ("classes", True, "not True"),
        ("classes", 10**1000, "not a number of more than 64 bits"),
        ("classes", [10], "not a list"),
        ("input_shape", [32, 32], "three whole numbers: channels, height and width"),
        ("input_shape", "abc", "three whole numbers"),
        ("input_shape", [3, 32, 0], "the width in input_shape must be a whole number from 1 to 4096, not 0"),
        ("input_shape", [0, 32, 32], "the number of channels in input_shape"),
        ("input_shape", [3, 10**9, 32], "the height in input_shape"),
        ("arguments", None, "arguments must map at most 32 names"),
        ("arguments", {"shortcut": ["pad"]}, "argument shortcut must be a number from .*, not a list"),
        ("arguments", {"shortcut": math.nan}, "argument shortcut must be a number from .*, not nan"),
        ("arguments", {"shortcut": math.inf}, "argument shortcut must be a number from .*, not inf"),
        ("arguments", {"": 1}, "the name of an argument"),
        ("arguments", {"x": 2**64}, "argument x must be a whole number"),
        ("arguments", {str(number): 1 for number in range(33)}, "at most 32 names"),
        ("mean", [0.5], "mean must be one number for each of the 3 channels"),
        ("mean", ["a", "b", "c"], "each mean must be a number from -1e.06 to 1e.06, not 'a'"),
        ("std", [1, 1, 0], "each std must be a number from 1e-06 to 1e.06, not 0"),
        ("std", [1, 1, math.nan], "not nan"),
        ("std", [1, 1, 10**400], "not a number of more than 64 bits"),
        ("std", None, "mean and std must be given together"),
    ],
)
def test_wrong_values_are_named(key, value, message):
    with pytest.raises(SettingsError, match=message):
        NetworkSpec.from_json(GOOD | {key: value})


def test_all_wrong_keys_are_named_at_once():
    value = GOOD | {"weights": "a", "url": "b"}
    del value["classes"]
    with pytest.raises(SettingsError, match=r"unknown keys: 'weights', 'url'; missing keys: 'classes'. Its keys are"):
        NetworkSpec.from_json(value)


def test_a_spec_does_not_change_with_what_it_was_made_from():
    arguments = {"width": 3}
    spec = NetworkSpec("mlp", (1, 8, 8), 2, arguments)
    arguments["width"] = 4
    assert spec.arguments == {"width": 3}
    assert copy.deepcopy(spec) == spec
