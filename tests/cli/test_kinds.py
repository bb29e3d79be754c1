from __future__ import annotations

import math

import click
import pytest

from structured_ensembles.cli.kinds import (
    NONE,
    Number,
    OneOf,
    OrNone,
    Pair,
    Scalar,
    Seeds,
    Several,
    Switch,
    Text,
    Whole,
)
from structured_ensembles.errors import SettingsError


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Text(), " digits ", "digits"),
        (Whole(), "4", 4),
        (Whole(), 4, 4),
        (Number(), "1e-3", 0.001),
        (Number(), 1, 1.0),
        (Switch(), True, True),
        (OneOf("a", "b"), "b", "b"),
        (OrNone(Whole()), None, NONE),
        (OrNone(Whole()), "none", NONE),
        (OrNone(Whole()), "3", 3),
        (Several(Whole()), "1, 2", (1, 2)),
        (Several(Whole()), [1, "2"], (1, 2)),
        (Several(Whole()), 5, (5,)),
        (Several(Text()), [], ()),
        (Seeds(), "1", (0,)),
        (Seeds(), 3, (0, 1, 2)),
        (Seeds(), "5-7", (5, 6, 7)),
        (Seeds(), "4 - 4", (4,)),
        (Seeds(), "7,3", (7, 3)),
        (Seeds(), [7, 3], (7, 3)),
        (Pair(Number()), "overlap=0.5", ("overlap", 0.5)),
        (Pair(Number()), ("overlap", 1), ("overlap", 1.0)),
        (Pair(Scalar()), "a=b=c", ("a", "b=c")),
        (Scalar(), "pad", "pad"),
        (Scalar(), "256", 256),
        (Scalar(), "0.5", 0.5),
        (Scalar(), "True", True),
        (Scalar(), "nan", "nan"),
        (Scalar(), 2.5, 2.5),
    ],
)
def test_values_are_read(kind, value, expected):
    read = kind.convert(value, None, None)

    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Text(), ""),
        (Text(), 5),
        (Whole(), "2.5"),
        (Whole(), 2.5),
        (Whole(), True),
        (Whole(), None),
        (Number(), "much"),
        (Number(), math.inf),
        (Number(), "nan"),
        (Number(), False),
        (Number(), [1]),
        (Switch(), "yes"),
        (Switch(), 1),
        (OrNone(Whole()), "x"),
        (Several(Whole()), "1,x"),
        (Pair(Number()), "overlap"),
        (Pair(Number()), "=1"),
        (Pair(Number()), ("overlap", "much")),
        (Scalar(), [1]),
        (Scalar(), None),
    ],
)
def test_other_values_are_refused(kind, value):
    with pytest.raises(click.BadParameter):
        kind.convert(value, None, None)


def test_the_nearest_choice_is_proposed():
    with pytest.raises(SettingsError, match="did you mean 'private'"):
        OneOf("private", "coupled").convert("privat", click.Option(["--scope"]), None)


@pytest.mark.parametrize("text", ["", "0", "9-5", "-1", "1-", "1,", ",1", "1-2-3", "1-2,5", "1.5", "a", "1234567"])
def test_what_are_no_seeds(text):
    with pytest.raises(click.UsageError, match=r"write 5 \(how many\), 5-9 or 3,7 \(which\)"):
        Seeds().convert(text, None, None)
