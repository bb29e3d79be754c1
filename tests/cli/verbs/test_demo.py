from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from structured_ensembles.options import presets

from ..conftest import invoke, sha256


@pytest.fixture
def quick(monkeypatch):
    """The default preset, with as little work as possible."""
    original = presets._default

    def tiny(family):
        start = original(family)
        search, training = replace(start.search, max_steps=2), replace(start.training, epochs=1)
        return replace(start, search=search, training=training)

    monkeypatch.setattr(presets, "_default", tiny)


@pytest.mark.slow  # five fits
def test_the_demo_explains_compares_and_can_be_repeated(here, quick):
    result = invoke("demo")

    assert result.exit_code == 0, result.output
    for text in ("1. The images", "3. The structured ensemble", "single network", "deep ensemble x 4", "runs/demo"):
        assert text in result.stdout
    folder = Path("runs/demo")
    assert {path.stem for path in folder.glob("*.safetensors")} == {"structured", "single", "deep"}

    assert invoke("fit", "--config", folder / "config.yaml", "--against", "single", "--out", "again").exit_code == 0
    assert sha256(Path("again/structured.safetensors")) == sha256(folder / "structured.safetensors")


def test_an_existing_folder_is_refused(refused):
    Path("mine").mkdir()

    assert "mine exists" in refused("demo", "--out", "mine")
