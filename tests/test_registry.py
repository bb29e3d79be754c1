"""Names and what they stand for."""

from __future__ import annotations

import math

import pytest

from structured_ensembles.continual.strategies.base import Strategy
from structured_ensembles.errors import SettingsError
from structured_ensembles.methods.fitting import Fittable
from structured_ensembles.options.catalogue import (
    ARCHITECTURES,
    BLOCKS,
    FORMATS,
    FORMS,
    METHODS,
    SOURCES,
    STRATEGIES,
    TERMS,
)
from structured_ensembles.registry import Registry
from structured_ensembles.scores.diversity import Term


@pytest.fixture
def numbers():
    return Registry("number", "files", {"one": ("marks:mark", "the first"), "two": ("whole:whole", "the second")})


def test_a_name_can_be_added_once(numbers):
    assert numbers.register("pi", "a long one")(math.pi) == math.pi

    assert list(numbers) == ["one", "two", "pi"]
    assert len(numbers) == 3
    assert "pi" in numbers
    assert (numbers["pi"], numbers.about("pi"), numbers.about("e")) == (math.pi, "a long one", "")
    for taken in ("pi", "one"):
        with pytest.raises(SettingsError, match=f"number '{taken}' is registered already: choose another name"):
            numbers.register(taken)(3)


@pytest.mark.parametrize("name", ["", " ", "a:b"])
def test_what_is_no_name_is_refused(numbers, name):
    with pytest.raises(SettingsError, match="use a name that is not empty, without a colon"):
        numbers.add(name, 1)


def test_an_unknown_name_proposes_the_nearest(numbers):
    with pytest.raises(SettingsError, match="unknown number 'tow': did you mean 'two'"):
        numbers["tow"]


@pytest.mark.parametrize(
    ("table", "known"),
    [
        (METHODS, lambda name, kind: issubclass(kind, Fittable) and kind.method == name),
        (STRATEGIES, lambda name, kind: issubclass(kind, Strategy) and kind.name == name),
        (TERMS, lambda name, term: isinstance(term, Term) and term.name == name),
        (BLOCKS, lambda _, measured: measured.__name__ == "measured"),
        (SOURCES, lambda _, load: callable(load)),
        (FORMS, lambda _, make: callable(make)),
        (FORMATS, lambda _, load: callable(load)),
        (ARCHITECTURES, lambda name, factory: callable(factory) and factory.__name__ == name),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_every_line_of_the_catalogue_leads_to_what_it_says(table, known):
    assert [name for name in table if not known(name, table[name])] == []
    assert [name for name in table if not table.about(name)] == []
