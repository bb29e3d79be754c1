from __future__ import annotations

import re

import pytest

from structured_ensembles.continual.results.report import charts

OWNERS = {"backbone.a": [0, 1, 0, -1], "backbone.b": [1, 1, -1, -1, 0, 1]}


def lines(svg):
    """By style, the places of every line."""
    found = re.findall(r'<polyline class="(s\d)" points="([^"]+)"', svg)
    return [(style, [tuple(map(float, spot.split(","))) for spot in spots.split()]) for style, spots in found]


def test_one_strategy_stands_out_and_has_its_spread(made_up):
    chart = charts.accuracy(made_up(), "structured")
    styles = [style for style, _ in lines(chart.svg)]
    assert styles == ["s5", "s5", "s1", "s2", "s0"], "naive and packnet behind, then the bounds, then ours"
    assert chart.svg.count("<polygon") == 1
    assert [name for _, _, name in chart.legend] == ["structured", "single_task", "joint", "the others"]


def test_a_bound_can_stand_out_itself(made_up):
    chart = charts.accuracy(made_up(["structured", "single_task", "naive"]), "single_task")
    assert [style for style, _ in lines(chart.svg)] == ["s5", "s5", "s0"]
    assert [(kind, name) for _, kind, name in chart.legend] == [("s0", "single_task"), ("s5", "the others")]


def test_a_single_strategy_needs_no_legend(made_up):
    chart = charts.accuracy(made_up(["structured"]), "structured")
    assert chart.legend == ()
    assert "structured goes from" in chart.alt


@pytest.mark.parametrize("chart", [charts.accuracy, charts.memory])
@pytest.mark.parametrize("tasks", [1, 4, 23])
@pytest.mark.parametrize("shift", [0, -0.5, -0.899])
def test_every_line_stays_in_its_frame(made_up, chart, tasks, shift):
    svg = chart(made_up(["structured", "single_task", "packnet"], tasks=tasks, shift=shift), "structured").svg
    for _, spots in lines(svg):
        assert len(spots) == tasks
        assert all(40 <= x <= 390 and 29 <= y <= 211 for x, y in spots)


def test_memory_is_drawn_as_high_as_it_is(made_up):
    svg = charts.memory(made_up(["structured", "single_task"]), "structured").svg
    found = dict(lines(svg))
    rise = [spot[0][1] - spot[-1][1] for spot in (found["s1"], found["s0"])]
    grown = (300_000 + 1500, 100_000 * (0.5 - 0.5**4) + 1500)
    assert rise[0] / rise[1] == pytest.approx(grown[0] / grown[1], rel=0.01)


def test_strips_are_as_wide_as_what_each_task_owns():
    chart = charts.owners(OWNERS, ["0, 1", "2, 3"])
    bars = re.findall(r'<rect class="(t\d+|free)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', chart.svg)
    shares = [(kind, round((float(width) + 1.5) / 400, 2)) for kind, _, width in bars]
    first = [("t0", 0.5), ("t1", 0.25), ("free", 0.25)]
    assert shares == [*first, ("t0", 0.17), ("t1", 0.5), ("free", 0.33)]
    assert chart.alt == "Who owns which channels: 2 tasks own 7 of 10, 3 are free."
    assert [name for _, _, name in chart.legend] == ["0, 1", "2, 3", "free"]
    assert "1 of 4 free" in chart.svg


def test_more_tasks_than_colours_and_long_names_have_a_place():
    name = "stages.0.blocks." * 5 + "conv"
    svg = charts.owners({name: list(range(20))}, [str(i) for i in range(20)]).svg
    assert set(re.findall(r'class="(t\d+)"', svg)) == {f"t{i}" for i in range(charts.TASK_COLOURS)}
    assert name not in svg
    assert "\N{HORIZONTAL ELLIPSIS}" in svg
