"""Pictures of made-up streams: what is in them, and that they depend on the numbers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from structured_ensembles.continual.results import pictures
from structured_ensembles.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

OWNERS = {"backbone.a": [0, 1, 0, -1], "backbone.b": [2, 2, -1, -1, 0, 1]}
ALL = ["accuracy.png", "matrix.png", "memory.png", "capacity.png", "owners.png"]


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.convert("RGB").tobytes()


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Fewer dots, the same pictures: drawing is what takes time here."""
    monkeypatch.setattr("structured_ensembles.evaluation.pictures.drawing._DPI", 40)


def test_everything_that_can_be_shown_is_drawn(made_up, as_runs, tmp_path):
    found = pictures.draw(as_runs(made_up(["naive", "structured"]), OWNERS), tmp_path / "deep" / "folder")
    assert [path.name for path in found] == ALL
    assert {path.name for path in (tmp_path / "deep" / "folder").iterdir()} == set(ALL)
    assert all(len(set(pixels(path))) > 10 for path in found)


def test_what_takes_no_capacity_has_no_picture_of_it(made_up, as_runs, tmp_path):
    assert [path.name for path in pictures.draw(as_runs(made_up(["naive", "ewc"])), tmp_path)] == ALL[:3]
    with pytest.raises(DataError, match="no strategy takes channels or weights"):
        pictures.capacity_left(made_up(["naive"]), tmp_path / "x.png")


@pytest.mark.parametrize("picture", [pictures.accuracy_over_stream, pictures.accuracy_matrix])
def test_pictures_depend_on_the_numbers_and_only_on_them(picture, made_up, tmp_path):
    for name, shift in (("a", 0.0), ("b", -0.1), ("c", 0.0)):
        picture(made_up(["structured"], tasks=2, shift=shift), tmp_path / name)
    first, other, again = (pixels(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other


def test_every_strategy_has_a_line_of_its_own_look(made_up, tmp_path, drawn):
    names = ["structured", "single_task", *(f"strategy {i}" for i in range(14))]
    results = made_up(names)
    pictures.accuracy_over_stream(results, tmp_path / "x.png")
    (axes,) = drawn[0].axes
    lines = [bars.lines[0] for bars in axes.containers]
    assert [bars.get_label() for bars in axes.containers] == names
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == len(names)
    for line, runs in zip(lines, results.values(), strict=True):
        last = [sum(run.accuracies[-1]) / len(run.accuracies) for run in runs]
        assert line.get_ydata()[-1] == pytest.approx(sum(last) / len(last))
    drawn[0].canvas.draw()
    beside = drawn[0].legends[0].get_window_extent()
    assert axes.get_window_extent().x1 < beside.x0
    assert drawn[0].bbox.y0 <= beside.y0


def test_memory_starts_at_nothing_and_has_separate_networks_behind_it(made_up, tmp_path, drawn):
    pictures.memory_over_stream(made_up(), tmp_path / "x.png")
    pictures.memory_over_stream(made_up(["naive"]), tmp_path / "x.png")
    assert all(figure.axes[0].get_ylim()[0] == 0 for figure in drawn)
    legends = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn]
    assert "below separate networks" in legends[0]
    assert legends[1] == ["naive"]


def test_all_matrices_have_one_scale_and_no_number_where_none_was_measured(made_up, tmp_path, drawn):
    results = made_up(["structured", "naive"], tasks=3)
    pictures.accuracy_matrix(results, tmp_path / "x.png")
    maps = [axes for axes in drawn[0].axes if axes.images]
    assert [axes.get_title() for axes in maps] == ["structured", "naive"]
    assert len({axes.images[0].get_clim() for axes in maps}) == 1
    assert [len(axes.texts) for axes in maps] == [6, 6]


def test_long_streams_have_no_numbers_in_their_squares(made_up, tmp_path, drawn):
    pictures.accuracy_matrix(made_up(["naive"], tasks=13, seeds=1), tmp_path / "x.png")
    assert not drawn[0].axes[0].texts


def test_every_channel_is_in_the_strip_of_its_layer_with_the_colour_of_its_owner(tmp_path, drawn):
    pictures.channel_owners(OWNERS, tmp_path / "x.png")
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a (4)", "b (6)"]
    count = [len(bars.get_paths()) for bars in axes.collections]
    assert count == [1, 2, 1, 2, 1, 1, 2], "free, then the tasks, layer by layer"
    starts = [[path.vertices[:, 0].min() for path in bars.get_paths()] for bars in axes.collections]
    assert starts[:3] == [[0.75], [0, 0.5], [0.25]]
    colours = {tuple(bars.get_facecolor()[0]) for bars in axes.collections}
    assert len(colours) == 4
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["task 1", "task 2", "task 3", "free"]


def test_the_colours_of_many_tasks_come_again_in_stripes(tmp_path, drawn):
    pictures.channel_owners({"a": list(range(14))}, tmp_path / "x.png")
    looks = [(tuple(bars.get_facecolor()[0]), bars.get_hatch()) for bars in drawn[0].axes[0].collections]
    assert len(set(looks)) == 14


def test_no_channel_and_no_result_are_refused_before_anything_is_written(made_up, tmp_path):
    for nothing in ({}, {"a": []}):
        with pytest.raises(DataError, match="no channel to draw"):
            pictures.channel_owners(nothing, tmp_path / "x.png")
    with pytest.raises(DataError, match="no result of any strategy"):
        pictures.draw([], tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_one_task_and_one_seed_can_be_drawn(made_up, as_runs, tmp_path):
    found = pictures.draw(as_runs(made_up(["structured"], tasks=1, seeds=1), {"a": [0, -1]}), tmp_path)
    assert [path.name for path in found] == ALL
