"""Means, spreads and intervals of several seeds; those of real runs are in the tests of their records."""

from __future__ import annotations

import math

import pytest

from structured_ensembles.evaluation.statistics import Spread, grouped, interval, spread, summary


def test_a_single_number_has_no_deviation():
    assert spread([3.0]) == Spread(3.0, None, 1)
    assert spread([1.0, 2.0, 3.0]) == Spread(2.0, 1.0, 3)


def test_a_summary_is_of_the_runs_that_finished():
    found = summary("arm", [{"a": 1.0, "b": 5.0}, None, {"a": 3.0}])
    assert (found.arm, found.seeds, found.failed) == ("arm", 3, 1)
    assert found.values == {"a": Spread(2.0, pytest.approx(math.sqrt(2)), 2), "b": Spread(5.0, None, 1)}
    assert summary("arm", [None]).values == {}


def test_an_interval_needs_numbers_that_differ():
    # t(0.975, 2) = 4.3027; the deviation of 1, 2, 3 is 1
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-3)
    assert interval([1.0]) is None
    assert interval([0.1, 0.1]) is None
    assert interval([0.0, 0.0]) == (0.0, 0.0)


def test_groups_keep_the_order():
    assert list(grouped([("b", 1), ("a", 2), ("b", 3)]).items()) == [("b", [1, 3]), ("a", [2])]
