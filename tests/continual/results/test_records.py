"""Records of streams: there and back as JSON, what they come to, and the tables."""

from __future__ import annotations

import copy
import csv
import json
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from structured_ensembles.continual.learner.memory import Memory
from structured_ensembles.continual.results.records import (
    StreamCell,
    StreamRun,
    accuracies_csv,
    from_json,
    runs_csv,
    steps_csv,
    summarise,
    to_json,
    values,
)
from structured_ensembles.continual.results.tables import console, failures, markdown, notices, unaided
from structured_ensembles.continual.streams.protocol import Step, StreamResult
from structured_ensembles.continual.streams.untold import Untold
from structured_ensembles.errors import ArtefactError, DataError

NAN = math.nan


def run(strategy: str, seed: int, rows: list[list[float]], sizes: list[int], **changes: object) -> StreamRun:
    """A finished run whose memory is all shared, one second a task."""
    grown = [size - before for size, before in zip(sizes, [0, *sizes], strict=False)]
    steps = [
        Step(f"task {i}", 1.0, tuple(row), Memory(shared=size), more, None)
        for i, (row, size, more) in enumerate(zip(rows, sizes, grown, strict=True))
    ]
    return StreamRun(StreamCell(strategy, seed), None, StreamResult(strategy, seed, tuple(steps)), **changes)


SINGLE = run("single_task", 0, [[0.9, NAN], [0.9, 0.8]], [100, 200])
JOINT = run("joint", 0, [[0.8, NAN], [0.9, 0.9]], [100, 100])
OURS = run(
    "structured",
    0,
    [[1.0, NAN], [0.75, 0.5]],
    [40, 50],
    owners={"0": [0, 1, -1]},
    notices=("Task 1 is odd.",),
    proved=True,
    untold=Untold(told=0.625, right=0.5, task=0.75, batch=1.0, auroc=0.875, novelty=0.5, nbytes=2000),
)
OURS_TOO = run("structured", 1, [[1.0, NAN], [1.0, 1.0]], [40, 50])
FAILED = StreamRun(StreamCell("structured", 2), "the backbone | cannot be used")
RUNS = [OURS, SINGLE, JOINT, OURS_TOO, FAILED]


def same(a: StreamRun, b: StreamRun) -> bool:
    """Equal, where NaN equals NaN."""
    return repr(a) == repr(b)


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", RUNS, ids=lambda one: one.cell.name)
def test_a_run_comes_back_from_json(one: StreamRun) -> None:
    assert same(from_json(json.loads(json.dumps(to_json(one), allow_nan=False))), one)


numbers = st.floats(0, 1)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(numbers, st.lists(st.just(NAN) | numbers, min_size=3, max_size=3)), min_size=3, max_size=3))
def test_any_step_comes_back(rows: list[tuple[float, list[float]]]) -> None:
    steps = [
        Step(f"{i}", NAN if i else seconds, tuple(row), Memory(i, 2, 3, 4, 5), -i, {"0.weight": seconds, "1": 0.5})
        for i, (seconds, row) in enumerate(rows)
    ]
    one = StreamRun(StreamCell("hat", 3), None, StreamResult("hat", 3, tuple(steps)))
    assert same(from_json(json.loads(json.dumps(to_json(one), allow_nan=False))), one)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("cell", "seed"), "0", "no cell"),
        (("cell", "strategy"), 3, "no cell"),
        (("cell",), None, "a run's cell must be a JSON object"),
        (("error",), 3, "error must be text or null"),
        (("error",), "oh", "either an error or steps"),
        (("steps",), None, "either an error or steps"),
        (("steps",), [], "a list that is not empty"),
        (("steps", 0), 3, "a step must be a JSON object"),
        (("steps", 0, "task"), 3, "task must be text"),
        (("steps", 0, "seconds"), "1", "seconds must be a number"),
        (("steps", 0, "accuracies"), [1.0], "accuracies must be 2 numbers"),
        (("steps", 0, "accuracies"), [1.0, "x"], "accuracies must be 2 numbers"),
        (("steps", 1, "marginal_bytes"), 1.5, "bytes must be integers"),
        (("steps", 1, "memory", "heads"), None, "bytes must be integers"),
        (("steps", 1, "memory"), {}, "memory must be a JSON object"),
        (("steps", 1, "capacity"), [1], "capacity must be null, or numbers by layer"),
        (("steps", 1, "capacity"), {"0": None}, "capacity must be null, or numbers by layer"),
        (("owners",), {"0": 1}, "owners must be lists of integers"),
        (("owners",), [0], "owners must be lists of integers"),
        (("notices",), "x", "notices must be a list of texts"),
        (("proved",), 1, "proved must be true or false"),
        (("untold",), [], "untold must be a JSON object"),
        (("untold", "task"), "most", "untold must be numbers"),
        (("untold", "nbytes"), 0.5, "untold.nbytes must be an integer"),
    ],
)
def test_what_is_no_run_is_refused(path: tuple[str | int, ...], value: object, message: str) -> None:
    plain = copy.deepcopy(to_json(OURS))
    *way, last = path
    place: object = plain
    for key in way:
        place = place[key]  # type: ignore[index]
    place[last] = value  # type: ignore[index]
    with pytest.raises(ArtefactError, match=message):
        from_json(plain)


# --- values -----------------------------------------------------------------------------------------------------------


def test_a_run_is_set_against_those_of_its_seed() -> None:
    found = values(OURS, RUNS)
    assert found["average_accuracy"] == (0.75 + 0.5) / 2
    assert found["forgetting"] == 1.0 - 0.75
    assert found["transfer"] == pytest.approx(((1.0 - 0.9) + (0.5 - 0.8)) / 2)
    assert found["intransigence"] == pytest.approx(((0.8 - 1.0) + (0.9 - 0.5)) / 2)
    assert (found["bytes"], found["bytes_shared"], found["bytes_heads"]) == (50, 50, 0)
    assert found["ratio"] == 50 / 200
    assert found["model_size_efficiency"] == (1 + 40 / 50) / 2
    assert found["seconds"] == 2.0


def test_without_a_reference_what_needs_one_is_left_out() -> None:
    found = values(OURS_TOO, RUNS)
    assert {"transfer", "intransigence", "ratio"}.isdisjoint(found)
    assert found["average_accuracy"] == 1.0


def test_seconds_are_those_of_all_tasks_or_none() -> None:
    assert OURS.result is not None
    first, second = OURS.result.steps
    stopped = replace(OURS, result=replace(OURS.result, steps=(first, replace(second, seconds=NAN))))
    assert OURS.seconds == 2.0
    assert stopped.seconds is None
    assert "seconds" not in values(stopped, [stopped])
    assert FAILED.seconds is None
    assert values(FAILED, RUNS) == {}


def test_strategies_are_summed_up_over_their_seeds() -> None:
    ours, single, joint = summarise(RUNS)
    assert (ours.arm, ours.seeds, ours.failed) == ("structured", 3, 1)
    assert (single.arm, single.seeds, joint.arm) == ("single_task", 1, "joint")
    accuracy = ours.values["average_accuracy"]
    assert (accuracy.mean, accuracy.count) == (pytest.approx((0.625 + 1.0) / 2), 2)
    assert accuracy.deviation == pytest.approx((1.0 - 0.625) / math.sqrt(2))
    assert ours.values["transfer"].count == 1
    assert single.values["average_accuracy"].deviation is None


def test_a_run_that_occurs_twice_is_refused() -> None:
    with pytest.raises(DataError, match="occur twice"):
        summarise([OURS, OURS])


# --- tables -----------------------------------------------------------------------------------------------------------


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_there_is_a_row_a_run() -> None:
    rows = table(runs_csv(RUNS))
    assert [(row["strategy"], row["seed"]) for row in rows] == [(one.cell.strategy, str(one.cell.seed)) for one in RUNS]
    assert float(rows[0]["average_accuracy"]) == 0.625
    assert rows[3]["ratio"] == ""
    assert (rows[4]["bytes"], rows[4]["error"]) == ("", "the backbone | cannot be used")


def test_there_is_a_row_a_step() -> None:
    rows = table(steps_csv(RUNS))
    assert len(rows) == 2 * 4
    parts = {"shared": "50", "normalisation": "0", "masks": "0", "heads": "0", "data": "0"}
    whole = {"learned": "2", "name": "task 1", "seconds": "1.0", "bytes": "50", "marginal_bytes": "10", "capacity": ""}
    expected = {
        "strategy": "structured",
        "seed": "0",
        **whole,
        **{f"bytes_{part}": size for part, size in parts.items()},
    }
    assert rows[1] == expected


def test_there_is_a_row_a_measurement() -> None:
    rows = table(accuracies_csv([OURS, FAILED]))
    assert [(row["learned"], row["task"], row["name"], row["accuracy"]) for row in rows] == [
        ("1", "1", "task 0", "1.0"),
        ("2", "1", "task 0", "0.75"),
        ("2", "2", "task 1", "0.5"),
    ]


def test_capacity_is_the_mean_over_layers() -> None:
    assert OURS.result is not None
    steps = tuple(replace(step, capacity={"0": 0.5, "1": 0.25}) for step in OURS.result.steps)
    rows = table(steps_csv([replace(OURS, result=replace(OURS.result, steps=steps))]))
    assert [row["capacity"] for row in rows] == [str((0.5 + 0.25) / 2)] * 2


# --- reports ----------------------------------------------------------------------------------------------------------


def test_the_page_has_both_tables_and_what_failed() -> None:
    page = markdown(RUNS)
    rows = [line for line in page.splitlines() if line.startswith("| `structured` | 2/3 |")]
    assert len(rows) == 2
    assert "81.25 ± 26.52" in rows[0]
    assert "| 50 B | - | 50 B | 0 B |" in rows[1]  # separate networks of one seed only, and two finished
    assert "- structured, seed 2: the backbone | cannot be used" in page
    assert "- structured, seed 0: Task 1 is odd." in page
    assert "every run finished" in markdown([SINGLE])


def test_answers_without_a_task_id_are_told_where_there_are_some() -> None:
    (told,) = unaided(RUNS)
    assert told.startswith("structured finds the task of 75.0 % of single images, and of 100.0 % of batches of 20. ")
    assert "right for 50.0 % of the images, the class for 62.5 % when the task is told" in told
    assert "others': 0.875; of known tasks against one that is new: 0.500" in told
    assert told.endswith("take 2 kB more.")
    assert f"### Without a task id\n\n- {told}" in markdown(RUNS)
    assert "Without a task id" not in markdown([OURS_TOO, SINGLE])
    assert values(OURS, RUNS)["untold_task"] == 0.75


def test_seeds_that_say_the_same_share_a_line() -> None:
    again = replace(FAILED, cell=StreamCell("structured", 3))
    assert failures([FAILED, again, OURS]) == ["structured, seeds 2, 3: the backbone | cannot be used"]
    assert notices([OURS, FAILED]) == ["structured, seed 0: Task 1 is odd."]


def test_the_terminal_gets_a_table_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    long = [replace(one, cell=StreamCell("batch_ensemble", one.cell.seed)) for one in (OURS, OURS_TOO)]
    console([*RUNS, *long], Console(width=80, highlight=False))
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 100, "the table and the sentences below it"
    assert any(line.startswith("batch_ensemble ") and "81.25±26.52" in line for line in printed)
    assert any(line.startswith("Without a task id, structured finds the task of 75.0 %") for line in printed)
    assert printed[-1] == "failed: structured, seed 2: the backbone | cannot be used"
