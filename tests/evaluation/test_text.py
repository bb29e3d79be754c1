"""Tables and sentences of made-up runs; those of real ones are in the tests of their tables."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from structured_ensembles.evaluation import text
from structured_ensembles.evaluation.statistics import summary

ROW = summary("arm", [{"a": 0.5, "seconds": 60.0}, {"a": 0.7, "b": 1.0, "seconds": 180.0}, None])


def test_tables_for_programs_and_for_pages():
    assert text.csv_table(["a", "b"], [{"a": 1, "b": None}, {"a": "x,y"}]) == 'a,b\n1,\n"x,y",\n'
    assert text.markdown_table(["m", "n"], [["`x`", "1"]]) == "| m | n |\n| --- | ---: |\n| `x` | 1 |"
    assert text.markdown_table(["m", "n"], [], names=2) == "| m | n |\n| --- | --- |"
    assert text.bullets(["one", "two"]) == "- one\n- two"


def test_all_seeds_that_tell_the_same_are_in_one_line():
    told = [("a", 0, "odd"), ("b", 0, "odd"), ("a", 2, "odd"), ("a", 1, "even")]
    assert text.by_seed(told) == ["a, seeds 0, 2: odd", "b, seed 0: odd", "a, seed 1: even"]


def test_counts_have_their_noun():
    assert (text.counted(1, "member"), text.counted(4, "member")) == ("1 member", "4 members")
    assert text.size(1_234_567) == "1.23 MB"


@pytest.mark.parametrize(
    ("name", "form", "cell"),
    [("a", "{:.1f}", "60.0 ± 14.1"), ("a", "{:+.0f}x", "+60x ± 14x"), ("b", "{:.1f}", "-"), ("c", "{:.1f}", "-")],
)
def test_a_cell_is_empty_unless_every_finished_seed_has_the_value(name, form, cell):
    assert text.measured(ROW, name, form, scale=100) == cell


def test_how_many_seeds_finished_and_how_long_one_took():
    assert text.finished(ROW) == "2/3"
    assert text.finished(summary("arm", [{}])) == "1"
    assert text.seconds(ROW) == "2m 00s"
    assert text.seconds(summary("arm", [None])) == "-"


def test_a_table_is_wider_than_a_narrow_console_and_numbers_are_whole():
    table = text.columns("a number")
    table.add_row("name " * 30, "123,456,789")
    printed = io.StringIO()
    text.show(table, Console(file=printed, width=40), ["failed: it"])
    *lines, last = printed.getvalue().splitlines()
    assert 40 < max(map(len, lines)) <= 100
    assert "123,456,789" in printed.getvalue()
    assert last == "failed: it"
