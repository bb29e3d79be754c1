from __future__ import annotations

import csv
import io
import json
import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from structured_ensembles.errors import ArtefactError, DataError, SettingsError
from structured_ensembles.evaluation.statistics import Spread
from structured_ensembles.experiments.comparison.records import (
    Arm,
    Cell,
    Result,
    from_json,
    paired,
    sections,
    summarise,
    tidy_csv,
    to_json,
)

NUMBERS = st.floats(-1e6, 1e6)


def run(method: str, seed: int, members: int = 4, budget: str = "1x", error: str | None = None, **values: float):
    return Result(Cell(method, members, budget, seed), error, values)


def single(seed: int, **values: float):
    return run("single", seed, 1, "", **values)


@given(
    st.sampled_from(["single", 'a, "b"\n']),
    st.integers(1, 9),
    st.sampled_from(["", "1x", "2MB"]),
    st.integers(0, 2**40),
    st.none() | st.text(),
    st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers()),
    st.text(),
)
def test_json_gives_back_the_same_result(method, members, budget, seed, error, values, machine):
    result = Result(Cell(method, members, budget, seed), error, values, machine)
    assert from_json(json.loads(json.dumps(to_json(result), allow_nan=False))) == result


def test_what_is_not_a_finite_number_is_missing():
    odd = {"nll": math.nan, "ece": math.inf, "brier": None, "huge": 10**400, "accuracy": 0.5, "flops": 7}
    assert Result(Cell("a", 1, "", 0), None, odd).values == {"accuracy": 0.5, "flops": 7}


GOOD = to_json(run("structured", 3, accuracy=0.5))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ([], "a run must be a JSON object with exactly the keys cell, error, values, machine"),
        ({"cell": GOOD["cell"], "error": None}, "exactly the keys cell, error, values, machine"),
        (GOOD | {"more": 1}, "exactly the keys cell, error, values, machine"),
        (GOOD | {"error": 3}, "error must be text or null, not 3"),
        (GOOD | {"machine": None}, "machine must be text, not None"),
        (GOOD | {"values": [0.5]}, r"values must be a JSON object, not \[0.5\]"),
        (
            GOOD | {"values": {"ece": "0.5", "nll": math.nan, "brier": True, "accuracy": 1}},
            "'ece', 'nll', 'brier' is not",
        ),
        (GOOD | {"cell": {"method": "a"}}, "exactly the keys method, members, budget, seed"),
        (GOOD | {"cell": GOOD["cell"] | {"method": ""}}, "method must be a name, not ''"),
        (GOOD | {"cell": GOOD["cell"] | {"members": True}}, "members must be 1 or more, not True"),
        (GOOD | {"cell": GOOD["cell"] | {"members": 0}}, "members must be 1 or more, not 0"),
        (GOOD | {"cell": GOOD["cell"] | {"budget": "huge"}}, "budget must be empty or as 1x.* not 'huge'"),
        (GOOD | {"cell": GOOD["cell"] | {"seed": 1.0}}, "seed must be an integer, not 1.0"),
    ],
)
def test_damaged_json_is_refused(damage, says):
    assert from_json(GOOD).cell.seed == 3
    with pytest.raises(ArtefactError, match=says):
        from_json(damage)


def test_the_tidy_table_has_a_row_per_run_and_loses_no_digit():
    results = [
        run("mimo", 0, error='too small,\n"smallest" is 0.7x'),
        replace(run("narrow", 1, zebra=1.0, ece=0.1 + 0.2, accuracy=2 / 3, bytes_on_disk=1_120_000), machine="a chip"),
        single(0, accuracy=1e-17, nll=0.5),
    ]
    text = tidy_csv(results)
    head, *rows = csv.reader(io.StringIO(text))
    values = ["accuracy", "nll", "ece", "bytes_on_disk", "zebra"]
    assert head == ["method", "members", "budget", "seed", *values, "machine", "error"]
    assert rows == [
        ["mimo", "4", "1x", "0", "", "", "", "", "", "", 'too small,\n"smallest" is 0.7x'],
        ["narrow", "4", "1x", "1", repr(2 / 3), "", repr(0.1 + 0.2), "1120000", "1.0", "a chip", ""],
        ["single", "1", "", "0", "1e-17", "0.5", "", "", "", "", ""],
    ]
    assert tidy_csv(list(reversed(results))).splitlines()[0] == text.splitlines()[0]
    assert tidy_csv(results[2:], {"data": "a, b"}).splitlines()[1].startswith('"a, b",single,1,,0,')
    assert tidy_csv([]) == "method,members,budget,seed,machine,error\n"


def test_a_summary_counts_seeds_failures_and_what_is_missing():
    results = [
        run("narrow", 0, accuracy=0.5, nll=1.0),
        run("narrow", 1, accuracy=0.7),
        run("narrow", 2, error="out of memory"),
        run("narrow", 3, budget="2x", error="out of memory"),
    ]
    small, large = summarise(results)
    assert (small.arm, small.seeds, small.failed) == (Arm("narrow", 4, "1x"), 3, 1)
    deviation = math.sqrt(((0.5 - 0.6) ** 2 + (0.7 - 0.6) ** 2) / (2 - 1))
    assert small.values["accuracy"] == Spread(pytest.approx(0.6), pytest.approx(deviation), 2)
    assert small.values["nll"] == Spread(1.0, None, 1)
    assert (large.seeds, large.failed, large.values) == (1, 1, {})


def test_a_failed_run_is_not_measured_whatever_it_says():
    results = [run("narrow", 0, error="killed", accuracy=0.1), run("narrow", 1, accuracy=0.5), single(0, accuracy=0.5)]
    assert summarise(results)[1].values["accuracy"] == Spread(0.5, None, 1)
    assert paired(results, "single", "accuracy") == []


def test_summaries_are_sorted_by_members_budget_and_method():
    order = [("narrow", 2, "1x"), ("narrow", 4, "2x"), ("deep", 4, ""), ("narrow", 4, "0.5x"), ("packed", 4, "2x")]
    order += [("packed", 4, "0.5x"), ("single", 1, ""), ("packed", 4, "10x"), ("packed", 4, "5kB")]
    arms = [summary.arm for summary in summarise([run(m, 0, k, b) for m, k, b in order])]
    assert [(arm.method, arm.members, arm.budget) for arm in arms] == [
        *[("single", 1, ""), ("narrow", 2, "1x"), ("deep", 4, "")],
        *[("narrow", 4, "0.5x"), ("packed", 4, "0.5x"), ("narrow", 4, "2x"), ("packed", 4, "2x")],
        *[("packed", 4, "10x"), ("packed", 4, "5kB")],
    ]


def test_the_single_network_is_in_every_section():
    results = [single(0), run("deep", 0, 2, ""), run("deep", 0, 4, ""), run("narrow", 0, 4)]
    found = {members: [one.arm.method for one in rows] for members, rows in sections(summarise(results)).items()}
    assert found == {2: ["single", "deep"], 4: ["single", "deep", "narrow"]}
    assert list(sections(summarise([single(0)]))) == [1]
    found = sections(summarise([single(0), run("deep", 0, 1, ""), run("deep", 0, 4, "")]))
    assert [[(one.arm.method, one.arm.members) for one in rows] for rows in found.values()] == [
        [("single", 1), ("deep", 1)],
        [("single", 1), ("deep", 4)],
    ]
    assert sections([]) == {}


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=8))
def test_intervals_are_those_of_a_paired_t_test(pairs):
    results = [run("ours", seed, accuracy=ours) for seed, (ours, _) in enumerate(pairs)]
    results += [run("narrow", seed, accuracy=theirs) for seed, (_, theirs) in reversed(list(enumerate(pairs)))]
    (found,) = paired(results, "narrow", "accuracy")
    gaps = [ours - theirs for ours, theirs in pairs]
    assert (found.arm.method, found.baseline.method, found.pairs) == ("ours", "narrow", len(pairs))
    assert found.mean == pytest.approx(statistics.fmean(gaps), abs=1e-9)
    if statistics.stdev(gaps) > 1e-6:  # SciPy has no interval where nothing varies
        assert found.interval is not None
        expected = ttest_rel(*zip(*pairs, strict=True)).confidence_interval(0.95)
        assert found.interval == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-6)


def test_a_difference_is_clear_if_its_interval_excludes_zero():
    def difference(*gaps: float):
        pairs = [r for i, gap in enumerate(gaps) for r in (run("ours", i, nll=gap), single(i, nll=0.0))]
        return paired(pairs, "single", "nll")[0]

    assert difference(1.0, 1.1).clear
    assert difference(-1.0, -1.1).clear
    assert not difference(1.0, -1.1).clear
    assert difference(1.0, 1.0, 1.0).interval is None  # of one image more each time nothing follows
    assert not difference(1.0, 1.0, 1.0).clear
    assert difference(0.0, 0.0).interval == (0.0, 0.0)
    assert not difference(0.0, 0.0).clear
    assert difference(5.0).interval is None
    assert not difference(5.0).clear


def test_seeds_that_lack_either_are_left_out():
    results = [run("ours", seed, nll=1.0 + seed) for seed in range(4)] + [run("ours", 9, ece=1.0)]
    results += [single(1, nll=0.5), single(2, ece=0.5), single(7, nll=0.1), single(9, nll=0.1)]
    results += [Result(Cell("single", 1, "", 3), "killed")]
    (found,) = paired(results, "single", "nll")
    assert (found.pairs, found.mean, found.interval) == (1, (1.0 + 1) - 0.5, None)


def test_the_baseline_is_the_arm_of_the_same_size_or_the_nearest_to_it():
    arms = [("single", 1, ""), ("deep", 2, ""), ("deep", 4, "")]
    arms += [(method, k, b) for method in ("narrow", "ours") for k in (2, 4) for b in ("1x", "2x")]
    results = [run(m, 0, k, b, nll=0.0) for m, k, b in arms]

    def baselines(name: str):
        return {(d.arm.method, d.arm.members, d.arm.budget): d.baseline for d in paired(results, name, "nll")}

    assert baselines("single") == {arm: Arm("single", 1, "") for arm in arms[1:]}
    of_deep = {arm: Arm("deep", arm[1], "") for arm in arms if arm[0] in {"narrow", "ours"}}
    assert baselines("deep") == of_deep
    assert baselines("narrow") == {arm: Arm("narrow", *arm[1:]) for arm in arms if arm[0] == "ours"}
    assert baselines("absent") == {}
    results.append(run("deep", 0, 1, "", nll=0.0))
    assert baselines("deep").items() >= of_deep.items()
    assert baselines("deep")["single", 1, ""] == Arm("deep", 1, "")


def test_a_run_that_occurs_twice_is_refused():
    results = [run("ours", 0, nll=1.0), run("ours", 0, nll=2.0)]
    with pytest.raises(DataError, match=r"method='ours'.*seed=0\) occurs twice: pass every run once"):
        summarise(results)
    with pytest.raises(DataError, match="occurs twice"):
        paired(results, "single", "nll")


def test_an_unreadable_budget_is_refused():
    odd = run("ours", 0)
    with pytest.raises(SettingsError, match="budget 'much' is not understood"):
        summarise([replace(odd, cell=replace(odd.cell, budget="much"))])
