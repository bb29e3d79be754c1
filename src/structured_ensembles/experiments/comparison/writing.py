"""What a comparison leaves in its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from structured_ensembles.data.sources import ImageData
from structured_ensembles.errors import DataError
from structured_ensembles.experiments.comparison.records import Result, tidy_csv, to_json
from structured_ensembles.experiments.comparison.tables import markdown
from structured_ensembles.files.whole import write_whole
from structured_ensembles.options.plans import Grid


def write_tables(grid: Grid, images: ImageData, found: Sequence[Result], folder: Path) -> None:
    """Write the table of all runs (CSV and JSON), their summary (Markdown), and pictures of what there is to draw."""
    from structured_ensembles.experiments.comparison.pictures import cost_front, diversity, training_cost

    plan = grid.plan
    common = {"data": images.name, "architecture": plan.architecture, "epochs": plan.settings.training.epochs}
    write_whole(folder / "results.csv", tidy_csv(found, common))
    write_whole(folder / "results.json", json.dumps([to_json(result) for result in found], indent=1) + "\n")
    about = ", ".join(f"{name} {value}" for name, value in common.items())
    write_whole(folder / "summary.md", f"## Comparison: {about}\n\n{markdown(found)}")
    for draw, name in ((cost_front, "cost.png"), (training_cost, "training_cost.png"), (diversity, "diversity.png")):
        with suppress(DataError):  # nothing to draw: all runs failed, or none has several members to disagree
            draw(found, folder / name)
