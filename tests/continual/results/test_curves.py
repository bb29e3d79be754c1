"""The numbers behind the pictures of a stream, against arithmetic that can be seen."""

from __future__ import annotations

import math
from statistics import stdev

import pytest

from structured_ensembles.continual.learner.memory import Memory
from structured_ensembles.continual.results import curves
from structured_ensembles.continual.streams.protocol import Step, StreamResult
from structured_ensembles.errors import DataError

NAN = math.nan


def result(rows, name="structured", seed=0, sizes=(100, 150), data=0, capacity=None) -> StreamResult:
    totals = [Memory(shared=size, data=data * (i + 1)) for i, size in enumerate(sizes)]
    before = [0, *(memory.total for memory in totals)]
    return StreamResult(
        name,
        seed,
        tuple(
            Step(f"task {i}", 2.0, tuple(row), memory, memory.total - before[i], capacity and capacity[i])
            for i, (row, memory) in enumerate(zip(rows, totals, strict=True))
        ),
    )


STEADY = ((0.9, NAN), (0.9, 0.7))
FALLING = ((0.9, NAN), (0.5, 0.8))


def test_accuracy_is_the_mean_over_the_tasks_so_far():
    first, last = curves.accuracy([result(STEADY), result(FALLING, seed=1)])
    assert (first.mean, first.deviation) == (pytest.approx(0.9), pytest.approx(0))
    ends = (0.9 + 0.7) / 2, (0.5 + 0.8) / 2
    assert last.mean == pytest.approx(sum(ends) / 2)
    assert last.deviation == pytest.approx(stdev(ends))


def test_one_seed_has_no_deviation():
    assert [one.deviation for one in curves.accuracy([result(STEADY)])] == [None, None]


def test_the_matrix_is_empty_where_nothing_was_measured():
    found = curves.matrix([result(STEADY), result(FALLING, seed=1)])
    assert found[0] == [pytest.approx(0.9), None]
    assert found[1] == [pytest.approx((0.9 + 0.5) / 2), pytest.approx((0.7 + 0.8) / 2)]


def test_kept_images_are_in_the_marginal_bytes_but_not_in_the_line():
    runs = [result(STEADY, sizes=(100, 150), data=30)]
    assert [one.mean for one in curves.memory(runs)] == [100, 150]
    assert [one.mean for one in curves.marginal(runs)] == [100 + 30, 50 + 30]
    assert curves.parts(runs) == {"shared": 150, "normalisation": 0, "masks": 0, "heads": 0, "data": 60}


def test_capacity_is_averaged_by_layer():
    one, other = ([{"a": 0.5, "b": 0.4}, {"a": 0.25, "b": 0.2}], [{"a": 0.3, "b": 0.4}, {"a": 0.15, "b": 0.2}])
    runs = [result(STEADY, seed=seed, capacity=left) for seed, left in enumerate((one, other))]
    assert curves.capacity(runs) == {"a": pytest.approx([0.4, 0.2]), "b": pytest.approx([0.4, 0.2])}
    assert curves.capacity([result(STEADY)]) == {}


def test_unchanged_means_exactly_in_every_seed():
    assert curves.unchanged([result(STEADY)])
    assert not curves.unchanged([result(STEADY), result(FALLING, seed=1)])
    better = ((0.9, NAN), (math.nextafter(0.9, 1), 0.7))
    assert not curves.unchanged([result(better)])


def test_numbers_compare_with_separate_networks_of_the_same_seed():
    separate = result(((0.8, NAN), (0.8, 0.6)), "single_task", seed=1, sizes=(200, 400))
    ours = [result(STEADY, seed=0), result(STEADY, seed=1)]
    found = curves.numbers({"structured": ours, "single_task": [separate]})["structured"]
    assert found["transfer"].mean == pytest.approx(((0.9 - 0.8) + (0.7 - 0.6)) / 2)
    assert found["transfer"].count == 1, "seed 0 has no separate networks"
    assert found["ratio"].mean == pytest.approx(150 / 400)
    assert found["bytes"].mean == 150
    assert "intransigence" not in found


def test_the_structured_strategy_comes_first_wherever_it_stands():
    assert curves.subject({"naive": [], "structured": []}) == "structured"
    assert curves.subject({"naive": [], "hat": []}) == "naive"


def test_results_that_cannot_stand_side_by_side_are_refused():
    with pytest.raises(DataError, match="no result of any strategy"):
        curves.check({})
    with pytest.raises(DataError, match="no result of hat: pass one at least, or leave it out"):
        curves.check({"structured": [result(STEADY)], "hat": []})
    unfinished = StreamResult("hat", 3, result(STEADY).steps[:1])
    with pytest.raises(DataError, match="hat, seed 3 has not learned its stream to the end"):
        curves.check({"hat": [unfinished]})
    with pytest.raises(DataError, match=r"hat, seed 3 learned the tasks task 0, but .* learned task 0 \| task 1"):
        curves.check({"structured": [result(STEADY)], "hat": [unfinished]})
