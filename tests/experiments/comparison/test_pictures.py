from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from structured_ensembles.errors import DataError
from structured_ensembles.experiments.comparison.pictures import (
    _ticks,
    apart,
    cost_front,
    diversity,
    pareto,
    training_cost,
)
from structured_ensembles.experiments.comparison.records import Cell, Result

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = (cost_front, training_cost, diversity)
POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=12)


def runs(methods: int = 16, members: tuple[int, ...] = (4,), seeds: int = 2, shift: float = 0.0) -> list[Result]:
    results = [Result(Cell("broken", 4, "1x", 0), "out of memory")]
    for i in range(methods):
        for count in members:
            for size, seed in ((size, seed) for size in (1, 2) for seed in range(seeds)):
                accuracy = 0.6 + 0.01 * i + 0.02 * size + 0.003 * seed + shift
                costs = {"bytes_on_disk": size * 1_000_000 + i, "training_flops": size * 10**12}
                measured = {"accuracy": accuracy, "nll": 1.5 - accuracy, "ece": 0.1 - 0.05 * accuracy}
                values = {**measured, **costs, "disagreement": 0.1 + 0.01 * i}
                results.append(Result(Cell(f"method {i}", count, f"{size}x", seed), None, values))
    return results


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.convert("RGB").tobytes()


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_depends_on_the_numbers_and_only_on_them(picture, tmp_path):
    for name, shift in (("a", 0.0), ("b", 0.01), ("c", 0.0)):
        picture(runs(3, shift=shift), str(tmp_path / name))
    first, other, again = (pixels(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other
    assert {path.name for path in tmp_path.iterdir()} == set("abc")


def test_every_method_has_its_own_shape_and_colour_and_is_named_beside_the_axes(tmp_path, drawn):
    cost_front(runs(16), tmp_path / "x.png")
    (legend,) = drawn[0].legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [*(f"method {i}" for i in range(16)), "Pareto front"]
    looks = [(line.get_color(), line.get_marker(), line.get_markerfacecolor()) for line in legend.get_lines()[:-1]]
    assert len({marker for _, marker, _ in looks}) == 16
    assert len({(colour, face) for colour, _, face in looks}) == 16
    drawn[0].canvas.draw()
    beside, below = legend.get_window_extent(), drawn[0].bbox
    assert all(axes.get_window_extent().x1 < beside.x0 for axes in drawn[0].axes)
    assert below.y0 <= beside.y0
    assert beside.x1 <= below.x1


def test_each_number_of_members_has_its_own_panels(tmp_path, drawn):
    single = [Result(Cell("single", 1, "", 0), None, dict(runs(1)[1].values))]
    for picture in PICTURES:
        picture(single + runs(2, members=(2, 4)), tmp_path / "x.png")
    titles = [[axes.get_title() for axes in figure.axes] for figure in drawn]
    assert titles == [["2 members"] * 3 + ["4 members"] * 3, ["2 members", "4 members"], ["2 members", "4 members"]]
    legends = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn]
    methods = ["method 0", "method 1"]
    assert legends == [["single", *methods, "Pareto front"], ["single", *methods, "Pareto front"], methods]


def test_the_front_steps_through_the_best_means_to_the_right_edge(tmp_path, drawn):
    values = {"a": (1e6, 0.5), "b": (2e6, 0.7), "c": (4e6, 0.6), "d": (8e6, 0.8)}
    results = [
        Result(Cell(name, 4, "1x", seed), None, {"training_flops": cost, "accuracy": accuracy + offset})
        for name, (cost, accuracy) in values.items()
        for seed, offset in enumerate((-0.01, 0.01))
    ]
    training_cost(results, tmp_path / "x.png")
    axes = drawn[0].axes[0]
    (front,) = (line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert list(front.get_xdata()) == [1e6, 2e6, 8e6, axes.get_xlim()[1]]
    assert list(front.get_ydata()) == pytest.approx([0.5, 0.7, 0.8, 0.8])


@pytest.mark.parametrize("picture", PICTURES)
def test_one_run_or_one_without_a_value_can_be_drawn(picture, tmp_path):
    one = runs(1, seeds=1)[:2]
    bare = Result(Cell("bare", 4, "1x", 0), None, {"accuracy": 0.5})
    free = Result(Cell("free", 4, "1x", 0), None, {"accuracy": 0.5, "bytes_on_disk": 0, "training_flops": 0})
    picture([*one, bare, free], tmp_path / "x.png")
    assert len(set(pixels(tmp_path / "x.png"))) > 10


def test_nothing_to_draw_is_refused(tmp_path):
    failed = [Result(Cell("a", 4, "1x", 0), "killed")]
    for results in ([], failed, [Result(Cell("a", 4, "1x", 0), None, {"accuracy": 1.0})]):
        with pytest.raises(DataError, match="no finished run has bytes_on_disk and accuracy or bytes_on_disk and nll"):
            cost_front(results, tmp_path / "x.png")
        with pytest.raises(DataError, match="no finished run has training_flops and accuracy"):
            training_cost(results, tmp_path / "x.png")
        with pytest.raises(DataError, match="no finished run has disagreement and accuracy"):
            diversity(results, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


@given(POINTS, st.booleans())
def test_the_front_is_what_no_other_point_beats(points, higher):
    def beaten(cost: int, quality: int) -> bool:
        good = [(c, q if higher else -q) for c, q in points]
        mine = quality if higher else -quality
        return any(c <= cost and q >= mine and (c, q) != (cost, mine) for c, q in good)

    assert pareto(points, higher=higher) == sorted({point for point in points if not beaten(*point)})


@given(st.lists(st.floats(1, 1e12), max_size=20) | st.lists(st.sampled_from([1.0, 1.01, 1.02, 2.0]), max_size=20))
def test_equal_costs_are_drawn_apart_in_the_order_of_all(costs):
    places = apart(costs)
    assert len(places) == len(costs)
    order = sorted(range(len(costs)), key=lambda i: (costs[i], places[i]))
    assert all(places[i] < places[j] for i, j in pairwise(order))


def test_a_cost_of_its_own_stays_where_it_is():
    first, second, third = apart([10.0, 30.0, 30.0])
    assert first == 10.0
    assert second < 30.0 < third
    assert second * third == pytest.approx(30.0 * 30.0)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.9e6, 4.6e6, [1e6, 1.5e6, 2e6, 3e6, 4e6]), (0.9, 60, [1, 2, 5, 10, 20, 50]), (0.5, 5000, [1, 10, 100, 1000])],
)
def test_ticks_are_as_fine_as_can_be_read(low: float, high: float, ticks: list[float]) -> None:
    assert _ticks(low, high) == pytest.approx(ticks)
