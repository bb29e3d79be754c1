from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from structured_ensembles.evaluation.metrics import Metrics
from structured_ensembles.evaluation.table import Row, render
from structured_ensembles.networks.sizes import Cost

METRICS = Metrics(0.9, 0.3, 0.15, 0.02, 0.2, 0.9, 1000)
COST = Cost(parameters=274_442, buffers=1_400, bytes=1_120_000, flops=82_000_000)
SINGLE = Row("single network", METRICS, COST, 65.0)


def printed(rows: list[Row], width: int = 100, *, terminal: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system="standard" if terminal else None
    )
    render(rows, console)
    return console.file.getvalue()


def bold(rows: list[Row]) -> list[str]:
    text = printed(rows, terminal=True).split("─\n")[1]
    return [found.strip() for found in re.findall("\x1b\\[1m(.*?)\x1b\\[0m", text)]


def test_every_number_stands_in_the_table():
    half = replace(COST, bytes=560_000, parameters=999_999, flops=1_500)
    text = printed([SINGLE, Row("half", replace(METRICS, accuracy=1.0), half, 7_265.0)])
    first, second = text.splitlines()[-2:]
    assert " ".join(first.split()) == "single network 90.00 0.300 0.150 0.020 0.20/0.90 274k 1.12 MB 1.00x 82M 65.0s"
    assert " ".join(second.split()) == "half 100.00 0.300 0.150 0.020 0.20/0.90 1M 560 kB 0.50x 1.5k 2h 01m"


@pytest.mark.parametrize("width", [20, 80, 100])
def test_plain_text_is_100_columns_at_most_and_cuts_no_number(width):
    long = Row("a structured ensemble with a long name", METRICS, replace(COST, bytes=10**9), 3_599.0)
    text = printed([SINGLE, long, Row("dense network (computed)", None, COST)], width)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "\x1b" not in text
    for number in ("274k", "1 GB 892.86x", "82M", "59m 59s", "0.20/0.90"):
        assert number in text


def test_a_wider_console_keeps_a_long_name_in_one_line():
    name = "a structured ensemble with a really long name"
    assert name in printed([replace(SINGLE, name=name)], width=200)


def test_the_best_of_each_metric_is_bold():
    other = Metrics(0.8, 0.2, 0.25, 0.01, 0.3, 1.5, 1000)
    assert bold([SINGLE, Row("other", other, COST)]) == ["90.00", "0.150", "0.20", "0.200", "0.010", "1.50"]


def test_what_looks_alike_is_bold_alike():
    alike = Metrics(0.90001, 0.30001, 0.15001, 0.02001, 0.2001, 0.9001, 1000)
    assert bold([SINGLE, Row("alike", alike, COST)]) == ["90.00", "0.300", "0.150", "0.020", "0.20", "0.90"] * 2


def test_a_lone_row_is_not_the_best_of_anything():
    assert bold([SINGLE]) == []
    assert bold([SINGLE, Row("dense", None, COST)]) == []


def test_missing_numbers_are_dashes_and_never_the_best():
    flawless = Row("flawless", replace(METRICS, accuracy=1.0, entropy_wrong=math.nan), COST)
    assert "0.20/-" in printed([SINGLE, flawless])
    assert "nan" not in printed([SINGLE, flawless])
    assert "0.90" not in bold([flawless, SINGLE])
    dense = printed([SINGLE, Row("dense", None, COST)]).splitlines()[-1]
    assert dense.split() == ["dense", "-", "-", "-", "-", "-/-", "274k", "1.12", "MB", "1.00x", "82M", "-"]


def test_names_are_no_markup():
    assert "member [red]1[/red]" in printed([replace(SINGLE, name="member [red]1[/red]")])


def test_a_first_row_without_bytes_gives_no_ratio():
    assert "0 B" in printed([replace(SINGLE, cost=replace(COST, bytes=0)), SINGLE])


@pytest.mark.parametrize(
    ("flops", "text"),
    [(999, "999"), (999_499, "999k"), (999_500, "1M"), (12_340, "12.3k"), (5 * 10**15, "5P"), (5 * 10**18, "5000P")],
)
def test_large_numbers_have_three_digits_and_a_prefix(flops, text):
    assert printed([replace(SINGLE, cost=replace(COST, flops=flops))]).split()[-2] == text
