"""What earlier calls have measured, perhaps elsewhere, kept beside the page: every run, and every section."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from structured_ensembles.errors import SettingsError
from structured_ensembles.experiments.grids import Cell, Outcome
from structured_ensembles.files.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from _typeshed import DataclassInstance

R = TypeVar("R", bound=Outcome)
_HEADING = re.compile(r"^(?=## |### What they know)", re.MULTILINE)


def merged(
    path: Path,
    plan: DataclassInstance,
    cells: Sequence[Cell],
    found: Sequence[R],
    parsed: Callable[[object], R],
    plain: Callable[[R], object],
) -> list[R]:
    """The runs of a file and those just found, which replace the same ones; the file holds all of them afterwards.

    Args:
        path: The file, JSON; made if anything is known.
        plan: What all runs have in common: runs of another plan are not mixed with these.
        cells: Of the grid: their order, and what else the file holds is dropped.
        found: What the work folder holds.
        parsed: Makes a run of plain values.
        plain: Makes plain values of a run.

    Raises:
        SettingsError: The file's runs are of another plan.
    """
    about = told(plan)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"plan": about, "runs": []}
    if kept["plan"] != about:
        raise SettingsError(f"the runs in {path} are of another plan, {kept['plan']}: delete it and measure again")
    known = {run.cell: run for run in [*map(parsed, kept["runs"]), *found]}
    runs = [known[cell] for cell in cells if cell in known]
    if runs:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"plan": about, "runs": [plain(run) for run in runs]}
        write_whole(path, json.dumps(kept, indent=1, allow_nan=False) + "\n")
    return runs


def told(plan: DataclassInstance) -> Any:  # noqa: ANN401 (what JSON holds)
    """Everything that decides what a plan's runs come to, in whatever order its fields are."""
    decisive = [one.name for one in fields(plan) if one.compare]
    return json.loads(json.dumps({name: value for name, value in asdict(plan).items() if name in decisive}))


def sections(page: Path) -> dict[str, str]:
    """The sections of a page that stands, by their headings; none if there is no page."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    parts = [part.strip() for part in _HEADING.split(text)[1:]]
    return {part.splitlines()[0]: part for part in parts}
