"""Fields that say what they are, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import Optimiser
from structured_ensembles.options.described import check, chosen_in, option, part


@dataclass(frozen=True)
class Inner:
    share: float = option(0.5, "A share.", limit="(0, 1]")
    count: int = option(3, "A number.", limit="[1, inf)", key="how_many")
    hidden: int = 7

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class Outer:
    inner: Inner = part(Inner, "Within", words={"share": "Another share."})
    limit: int | None = option(None, "None is no limit.", limit="[2, inf)", called="the limit", section="Here")
    optimiser: Optimiser = option(Optimiser.SGD, "Which.", section="Here")
    even: int = option(2, "An even number.", rule="must be at least 0, 2 for example", limit="[0, inf)", section="Here")

    def __post_init__(self):
        check(self, [(self.even % 2 == 1, f"even {self.even} is odd")])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: Inner(share=0), r"^share 0 is outside \(0, 1\]$"),
        (lambda: Inner(share=math.nan), r"^share nan is outside \(0, 1\]$"),
        (lambda: Inner(share="1"), "^share '1' must be a number$"),
        (lambda: Inner(count=0), "^count 0 must be at least 1$"),
        (lambda: Inner(count=2.5, share=None), "^share None must be a number; count 2.5 must be a whole number$"),
        (lambda: Outer(limit=1, even=3), "^the limit 1 must be at least 2, or none; even 3 is odd$"),
        (lambda: Outer(even=-2), "^even -2 must be at least 0, 2 for example$"),
        (lambda: Outer(optimiser="sdg"), "^unknown optimiser 'sdg': did you mean 'sgd'"),
        (lambda: Outer(inner=3), r"^inner must be Inner\(...\), not 3$"),
    ],
)
def test_everything_that_is_wrong_is_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        settings()


def test_numbers_and_names_of_other_kinds_become_what_they_stand_for():
    made = Outer(inner=Inner(count=np.int64(4)), optimiser="adam", limit=None)

    assert type(made.inner.count) is int
    assert made.optimiser is Optimiser.ADAM


def test_what_can_be_chosen_is_found_with_its_place_and_words():
    found = {one.key: one for one in chosen_in(Outer)}

    assert list(found) == ["share", "how_many", "limit", "optimiser", "even"]
    assert (found["how_many"].path, found["how_many"].section) == (("inner", "count"), "Within")
    assert found["share"].about.help == "Another share."
    assert found["how_many"].of(Outer(inner=Inner(count=9))) == 9
