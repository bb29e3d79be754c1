"""What README shows is run, so that it stays true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)  # noqa: S102 (our own file)
    assert names["same"](names["torch"].rand(2, 1, 8, 8)).shape == (4, 2, 3)
    assert (tmp_path / "ensemble.safetensors").exists()


def test_the_diversity_example_registers_a_term() -> None:
    from structured_ensembles import diversity

    exec(compile("import torch\n" + blocks("python")[1], "README.md", "exec"), {"__name__": "example"})  # noqa: S102
    try:
        assert "spread" in diversity.names()
    finally:
        diversity.registry._TERMS.pop("spread")


@pytest.mark.parametrize("marker", ["main", "tests"])
def test_the_two_commands_are_marked(marker: str) -> None:
    assert re.search(rf"<!-- {marker} -->\n```sh\n[^\n]+\n```", README.read_text(encoding="utf-8"))
