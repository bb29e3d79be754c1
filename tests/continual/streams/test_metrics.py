"""Every number on matrices that fit on paper."""

from __future__ import annotations

import math
from dataclasses import asdict

import hypothesis.strategies as st
import pytest
from hypothesis import given

from structured_ensembles.continual.streams import metrics
from structured_ensembles.errors import DataError

NAN = math.nan
R = [[0.9, NAN, NAN], [0.7, 0.8, NAN], [0.5, 0.9, 1.0]]
SINGLE = [[0.8, NAN, NAN], [0.8, 0.9, NAN], [0.8, 0.9, 0.7]]
JOINT = [[1.0, NAN, NAN], [0.9, 0.9, NAN], [0.6, 0.6, 0.9]]


def test_average_accuracy_is_that_of_the_last_row():
    assert metrics.average_accuracy(R) == pytest.approx((0.5 + 0.9 + 1.0) / 3)


def test_total_accuracy_is_that_of_the_lower_triangle():
    assert metrics.total_accuracy(R) == pytest.approx((0.9 + 0.7 + 0.8 + 0.5 + 0.9 + 1.0) / 6)


def test_backward_transfer_of_lopez_paz_compares_the_end_with_the_beginning():
    assert metrics.backward_transfer_lopez_paz(R) == pytest.approx(((0.5 - 0.9) + (0.9 - 0.8)) / 2)


def test_backward_transfer_of_diaz_rodriguez_compares_every_later_row():
    expected = ((0.7 - 0.9) + (0.5 - 0.9) + (0.9 - 0.8)) / 3
    assert metrics.backward_transfer_diaz_rodriguez(R) == pytest.approx(expected)


def test_forgetting_starts_from_the_best_before_the_end_and_may_be_negative():
    assert metrics.forgetting(R) == pytest.approx(((0.9 - 0.5) + (0.8 - 0.9)) / 2)
    later_best = [[0.6, NAN, NAN], [0.9, 0.8, NAN], [0.5, 0.8, 1.0]]
    assert metrics.forgetting(later_best) == pytest.approx(((0.9 - 0.5) + 0) / 2)


def test_forgetting_does_not_look_at_tasks_before_they_are_learned():
    guessed = [[0.9, 1.0, 1.0], [0.7, 0.8, 1.0], [0.5, 0.9, 1.0]]
    assert metrics.forgetting(guessed) == metrics.forgetting(R)


def test_transfer_and_intransigence_compare_what_was_just_learned():
    assert metrics.transfer(R, SINGLE) == pytest.approx(((0.9 - 0.8) + (0.8 - 0.9) + (1.0 - 0.7)) / 3)
    assert metrics.intransigence(R, JOINT) == pytest.approx(((1.0 - 0.9) + (0.9 - 0.8) + (0.9 - 1.0)) / 3)


def test_one_task_has_accuracies_and_nothing_to_forget():
    found = metrics.measure([[0.75]], single=[[0.5]], joint=[[1.0]])
    assert (found.average_accuracy, found.total_accuracy) == (0.75, 0.75)
    assert (found.transfer, found.intransigence) == (0.25, 0.25)
    undefined = (found.backward_transfer_lopez_paz, found.backward_transfer_diaz_rodriguez, found.forgetting)
    assert all(math.isnan(value) for value in undefined)


def test_what_was_not_measured_is_not_made_up():
    hole = [[0.9, NAN], [NAN, 0.8]]
    for name, value in asdict(metrics.measure(hole)).items():
        assert math.isnan(value), name


@given(st.integers(2, 6), st.floats(0, 1))
def test_nothing_changes_then_nothing_is_forgotten(tasks: int, accuracy: float):
    rows = [[accuracy if j <= i else NAN for j in range(tasks)] for i in range(tasks)]
    found = metrics.measure(rows, single=rows, joint=rows)
    changes = (found.backward_transfer_lopez_paz, found.backward_transfer_diaz_rodriguez, found.forgetting)
    assert (*changes, found.transfer, found.intransigence) == (0, 0, 0, 0, 0)
    assert found.average_accuracy == pytest.approx(accuracy)
    assert found.total_accuracy == pytest.approx(accuracy)


def test_size_efficiency_is_one_without_growth_and_falls_with_it():
    assert metrics.model_size_efficiency([100, 100, 100]) == 1
    assert metrics.model_size_efficiency([100, 200, 400]) == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    assert metrics.model_size_efficiency([100, 50]) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "0 rows of"),
        ([[0.5, 0.5]], r"1 rows of \[2\] accuracies: pass T rows of T"),
        ([[98.5]], "an accuracy of 98.5: pass shares from 0 to 1, not percentages"),
    ],
)
def test_what_is_no_matrix_of_accuracies_is_refused(rows: list[list[float]], message: str):
    with pytest.raises(DataError, match=message):
        metrics.measure(rows)


def test_references_of_another_stream_are_refused():
    with pytest.raises(DataError, match="accuracies of 3 tasks against those of 1: measure both on one stream"):
        metrics.transfer(R, [[0.5]])
