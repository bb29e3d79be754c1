from __future__ import annotations

import json
from typing import TYPE_CHECKING

import blocks

if TYPE_CHECKING:
    from pathlib import Path


def evaluated(folder: Path, **narrow: object) -> Path:
    """What an evaluation of four methods may leave, of which nearly all blocks failed."""
    folder.mkdir()
    entry = {"out_of_distribution": [], "calibration": {"uncalibrated": {"accuracy": 0.5}}, "adversarial": None}
    predictors = [{**entry, "name": name, **(narrow if name == "narrow" else {})} for name in blocks.METHODS]
    (folder / "evaluation.json").write_text(json.dumps({"predictors": predictors}))
    return folder


def test_a_mean_is_over_all_seeds_or_there_is_none(tmp_path: Path) -> None:
    folders = [evaluated(tmp_path / "0"), evaluated(tmp_path / "1", calibration=None), tmp_path / "2"]
    lines = blocks.section(folders).splitlines()
    assert lines[0] == "| mean of 2 seeds | `single` | `structured` | `narrow` | `deep` |"
    assert lines[2] == "| accuracy % | 50.00 | 50.00 | - | 50.00 |"
    assert "| accuracy %, FGSM 0.1 | - | - | - | - |" in lines


def test_where_nothing_was_measured_there_is_no_table(tmp_path: Path) -> None:
    assert blocks.section([tmp_path / "0"]) == ""
