from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structured_ensembles.evaluation.report import _svg, charts, words


@pytest.fixture
def one(evaluation):
    return evaluation["predictors"][0]


def parsed(chart):
    return ET.fromstring(str(chart.svg))  # noqa: S314 - our own text


def all_of(one):
    return [
        charts.reliability(one["calibration"]),
        charts.doubt(one["uncertainty"]),
        charts.risk_coverage(one["selective"]),
        *map(charts.unfamiliar, one["out_of_distribution"]),
        charts.attacks(one["adversarial"], 0.98),
        charts.attacks(one["adversarial"], None),
        charts.severities(one["corruptions"], 0.98),
        charts.severities(one["corruptions"], None),
        charts.widths(one["structure"]["layers"]),
        charts.costs(one["cost"], "bytes"),
    ]


def test_every_chart_is_sound_and_has_an_alternative(one):
    for chart in all_of(one):
        root = parsed(chart)
        assert root.get("role") == "img"
        assert root.get("aria-label") == chart.alt
        assert re.search(r"\d", chart.alt), "the alternative names a number"


def test_no_shape_leaves_its_picture(one):
    for chart in all_of(one):
        root = parsed(chart)
        height = float(root.get("viewBox").split()[3])
        spots = [pair.split(",") for line in root.iter("polyline") for pair in line.get("points").split()]
        spots += [(circle.get("cx"), circle.get("cy")) for circle in root.iter("circle")]
        assert all(0 <= float(x) <= _svg.WIDTH and 0 <= float(y) <= height for x, y in spots)


def test_a_calibrated_predictor_lies_on_the_diagonal():
    curve = {"confidence": [None, 0.25, 1.0], "accuracy": [None, 0.25, 1.0], "count": [0, 10, 1000]}
    root = parsed(charts.reliability({"reliability": curve, "uncalibrated": {"ece": 0.0}}))
    dots = [circle for circle in root.iter("circle") if circle.get("class") == "d0"]
    ideal = next(line for line in root.iter("line") if line.get("class") == "ideal")
    x1, y1, x2, y2 = (float(ideal.get(name)) for name in ("x1", "y1", "x2", "y2"))
    assert len(dots) == 2, "the empty bin is left out"
    for dot in dots:
        x, y = float(dot.get("cx")), float(dot.get("cy"))
        assert y == pytest.approx(y1 + (x - x1) / (x2 - x1) * (y2 - y1), abs=0.2)
    assert float(dots[0].get("r")) < float(dots[1].get("r")), "the fuller bin has the larger dot"


def test_each_histogram_is_as_high_as_its_own_share(one):
    shape = {"edges": [0.0, 1.0, 2.0], "right": [900, 100], "wrong": [1, 9]}
    root = parsed(charts.doubt(one["uncertainty"] | {"histogram": shape}))
    right, wrong = ([float(y) for y in re.findall(r"V([\d.]+)H", path.get("d"))] for path in root.iter("path"))
    assert right == wrong[::-1]


def test_a_group_without_images_is_drawn_flat(one):
    shape = {"edges": [0.0, 1.0, 2.0], "right": [900, 100], "wrong": [0, 0]}
    chart = charts.doubt(one["uncertainty"] | {"histogram": shape, "entropy_wrong": None})
    assert ("area", "subject", "wrong answers (0)") in chart.legend
    assert f"wrong ones of {words.MISSING}" in chart.alt


def test_a_predictor_without_mistakes_has_a_flat_curve(one):
    chart = charts.risk_coverage(one["selective"] | {"curve": {"coverage": [0.5, 1.0], "risk": [0.0, 0.0]}})
    heights = {point.split(",")[1] for point in next(parsed(chart).iter("polyline")).get("points").split()}
    assert len(heights) == 1


def test_names_are_escaped(one):
    found = one["out_of_distribution"][0] | {"name": '<script>"&'}
    chart = charts.unfamiliar(found)
    assert "<script>" not in chart.svg
    assert '<script>"&' in parsed(chart).get("aria-label")


def test_without_a_threshold_nothing_is_declined(one):
    for row in one["corruptions"]["by_severity"]:
        row["rejected_share"] = None
    assert charts.severities(one["corruptions"], 0.9).legend == ()


def test_a_cost_that_only_one_has_is_not_drawn(one):
    alone = {"ensemble": one["cost"]["ensemble"], "dense": None, "deep": None}
    assert charts.costs(alone, "bytes") is None
    unknown = {part: cost | {"peak_bytes": None} for part, cost in one["cost"].items()}
    assert charts.costs(unknown, "peak_bytes") is None


def test_bars_are_as_long_as_what_they_cost(one):
    cost = {part: {"bytes": value} for part, value in (("ensemble", 50), ("dense", 100), ("deep", 400))}
    bars = [bar for bar in parsed(charts.costs(cost, "bytes")).iter("rect") if bar.get("class") != "track"]
    assert [float(bar.get("width")) for bar in bars] == [300 * 50 / 400, 300 * 100 / 400, 300]


def test_one_layer_is_enough(one):
    assert "nan" not in charts.widths(one["structure"]["layers"][:1]).svg


@given(st.floats(1e-6, 1e9), st.integers(2, 6))
def test_ticks_start_at_0_reach_the_highest_and_stay_few(highest, intervals):
    ticks = _svg.rounded(highest, intervals)
    assert ticks[0] == 0
    assert ticks[-1] >= highest * (1 - 1e-6)
    assert ticks[-2] < highest
    assert 2 <= len(ticks) <= intervals + 1
