"""What README shows is run, so that it stays true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from structured_ensembles.options.catalogue import TERMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from structured_ensembles.registry import Registry

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def executed(holding: str, before: str = "") -> dict[str, object]:
    """The names that the block leaves which holds a text."""
    (code,) = [block for block in blocks("python") if holding in block]
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(before + code, "README.md", "exec"), names)  # noqa: S102 (our own file)
    return names


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = executed("StructuredEnsemble(")
    assert names["same"](names["torch"].rand(2, 1, 8, 8)).shape == (4, 2, 3)
    assert (tmp_path / "ensemble.safetensors").exists()


def test_the_stream_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert executed("ContinualLearner(")["free"].tasks.shape == (5,)
    assert (tmp_path / "stream/stream.safetensors").exists()


def test_the_diversity_example_registers_a_term(forget: Callable[[Registry[Any]], None]) -> None:
    forget(TERMS)
    executed('@register("spread")', "import torch\n")
    assert "spread" in TERMS


@pytest.mark.parametrize("marker", ["main", "tests"])
def test_the_two_commands_are_marked(marker: str) -> None:
    assert re.search(rf"<!-- {marker} -->\n```sh\n[^\n]+\n```", README.read_text(encoding="utf-8"))
