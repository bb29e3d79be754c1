from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from structured_ensembles.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

TINY = ("--epochs", "1", "--search-steps", "2", "--members", "2")
"""A fit that takes a second or two."""


def invoke(*arguments: object):
    """Run the command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, str]:
    """By path, what every file holds; folders are listed too."""
    return {str(path): sha256(path) if path.is_file() else "" for path in sorted(folder.rglob("*"))}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(here):
    """Run the command, which must refuse in one line, with status 2, and leave every file and folder as it was."""

    def run(*arguments: object) -> str:
        before = contents(here)
        result = invoke(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stderr.splitlines()[-1].startswith("Error: ")
        assert "Traceback" not in result.output
        assert contents(here) == before
        return result.stderr

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished tiny run, with a single network beside the ensemble."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    result = invoke("fit", *TINY, "--against", "single", "--out", folder)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def artefact(finished):
    return finished / "structured.safetensors"
