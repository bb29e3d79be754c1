"""Runs and sections that earlier calls have measured stay, and are not mixed with others."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import keeping
import results
import streams
from structured_ensembles.errors import SettingsError
from structured_ensembles.experiments.comparison.records import Cell, Result, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST, SECOND, OTHER = (Cell("single", 1, "", seed) for seed in range(3))


@dataclass(frozen=True)
class Kept:
    epochs: int = 20
    noted: str = field(default="", compare=False)


def merged(path: Path, cells: Sequence[Cell], found: Sequence[Result], plan: Kept = Kept()) -> list[Result]:
    return keeping.merged(path, plan, cells, found, from_json, to_json)


def test_runs_of_several_calls_come_in_the_order_of_the_grid(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "runs.json"
    old, new = Result(SECOND, None, {"accuracy": 0.5}), Result(FIRST, None, {"accuracy": 0.25})
    assert merged(path, [FIRST, SECOND], [old]) == [old]
    assert merged(path, [FIRST, SECOND], [new]) == [new, old]
    again = Result(SECOND, None, {"accuracy": 0.75})
    assert merged(path, [FIRST, SECOND], [again]) == [new, again]
    assert merged(path, [SECOND], []) == [again]
    assert [one["values"] for one in json.loads(path.read_text())["runs"]] == [{"accuracy": 0.75}]


def test_where_nothing_is_known_nothing_is_written(tmp_path: Path) -> None:
    assert merged(tmp_path / "runs.json", [FIRST], []) == []
    assert not list(tmp_path.iterdir())


def test_runs_of_another_plan_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    merged(path, [FIRST], [Result(FIRST, "it failed")])
    before = path.read_text()
    with pytest.raises(SettingsError, match=r"another plan, \{'epochs': 20\}: delete it and measure again"):
        merged(path, [FIRST, OTHER], [Result(OTHER, "too")], Kept(30))
    assert path.read_text() == before
    merged(path, [FIRST], [], Kept(noted="this decides nothing"))


KEPT = {study.name: study.grid(Path(), 0).plan for study in results.STUDIES}
KEPT |= {stream.name: stream.grid("").plan for stream in streams.STREAMS}


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "docs/results").glob("*.json")), ids=lambda p: p.stem
)
def test_the_runs_that_are_kept_are_of_the_plans_that_are_measured(path: Path) -> None:
    assert json.loads(path.read_text(encoding="utf-8"))["plan"] == keeping.told(KEPT[path.stem])


def test_a_page_comes_apart_by_its_headings(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert keeping.sections(page) == {}
    page.write_text("# Results\n\nWords.\n\n## One\n\n### Table\n\n1\n\n### What they know: One\n\n2\n\n## Two\n\n3\n")
    assert keeping.sections(page) == {
        "## One": "## One\n\n### Table\n\n1",
        "### What they know: One": "### What they know: One\n\n2",
        "## Two": "## Two\n\n3",
    }
