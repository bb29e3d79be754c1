"""Which plain values are of which type."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from structured_ensembles.errors import ArtefactError
from structured_ensembles.files.plain import compact, fields_of, is_a, parsed


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("", str),
        (True, bool),
        (-3, int),
        (3, float),
        (0.5, float),
        (None, int | None),
        ("a", int | str),
        ([], list[int]),
        ([1, None, 0.5], list[float | None]),
        ({}, dict[str, int]),
        ({"a": [1, 2], "b": []}, dict[str, list[int]] | None),
    ],
)
def test_what_is_of_a_type(value: object, kind: object) -> None:
    assert is_a(value, kind)
    assert is_a(json.loads(json.dumps(value)), kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, str),
        (1, bool),
        (True, int),
        (True, float),
        (1.0, int),
        (float("nan"), float),
        (float("inf"), float),
        (10**400, float),
        (True, int | None),
        ((1, 2), list[int]),
        ("ab", list[str]),
        ([1, True], list[int]),
        ([], dict[str, int]),
        ({1: 1}, dict[str, int]),
        ({"a": None}, dict[str, float]),
        ({"a": 1}, dict[str, list[int]] | None),
    ],
)
def test_what_is_not(value: object, kind: object) -> None:
    assert not is_a(value, kind)


@dataclass
class Pair:
    """Two numbers."""

    left: int
    right: int


@pytest.mark.parametrize("value", [None, [], {"left": 1}, {"left": 1, "right": 2, "middle": 3}])
def test_an_object_has_the_fields_of_its_dataclass(value: object) -> None:
    assert Pair(**fields_of("a pair", {"right": 2, "left": 1}, Pair)) == Pair(1, 2)
    with pytest.raises(ArtefactError, match="a pair must be a JSON object with exactly the keys left, right"):
        fields_of("a pair", value, Pair)


def test_compact_text_is_strict_and_comes_back() -> None:
    value = {"ä": [1, 0.1, None, True], "b": {}}
    assert parsed(compact(value)) == value
    assert " " not in compact(value)
    with pytest.raises(ValueError, match="JSON"):
        compact(float("nan"))
