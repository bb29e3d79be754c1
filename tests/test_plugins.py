"""Files of a user's own, in this process, in the command and in its workers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from structured_ensembles import plugins
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.catalogue import ARCHITECTURES, FORMATS, METHODS, STRATEGIES, TERMS

from .cli.conftest import invoke

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from structured_ensembles.registry import Registry

PLUGIN = """
import torch
from torch import nn
from structured_ensembles import networks
from structured_ensembles.scores import diversity

@diversity.register("spread")
def spread(observation):
    return torch.stack([scores.var(dim=0).mean().neg().exp() for scores in observation.scores.values()]).mean()

@networks.register("tiny")
def tiny(input_shape, classes, width=24):
    pixels = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, classes))
"""
MORE = """
import numpy as np
import torch
from structured_ensembles import methods
from structured_ensembles.continual import strategies
from structured_ensembles.continual.strategies.naive import Naive
from structured_ensembles.data.sources import ImageData, Split
from structured_ensembles.methods.deep import DeepEnsemble
from structured_ensembles.options.catalogue import FORMATS

@methods.register("twins")
class Twins(DeepEnsemble):
    method = "twins"

@strategies.register("restless")
class Restless(Naive):
    name = "restless"

@FORMATS.register(".raw")
def load_raw(path, image_size):
    images = torch.from_numpy(np.fromfile(path, np.uint8)).view(-1, 1, 4, 4)
    split = Split(images, torch.arange(len(images)) % 4)
    return ImageData(path.name, split, split, tuple("abcd"))
"""


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(plugins, "_loaded", [])
    yield
    for name in [name for name in sys.modules if name.startswith("structens_plugin")]:
        del sys.modules[name]


def test_a_file_runs_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    lines = [
        "from pathlib import Path",
        "with Path(__file__).with_name('log').open('a') as log:",
        "    log.write('run')",
    ]
    file.write_text("\n".join(lines))
    plugins.load(file)
    plugins.load(str(file.parent / "." / "mine.py"))
    assert (tmp_path / "log").read_text() == "run"
    assert plugins.loaded() == (file.resolve(),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = a / 0\n", r"mine.py fails in line 2 \(ZeroDivisionError: division by zero\)"),
        ("def (", r"mine.py fails in line 1 \(SyntaxError: "),
        ("import no_such_library", r"fails in line 1 \(ModuleNotFoundError: No module named 'no_such_library'\)"),
        (
            "import structured_ensembles.networks as n\nn.register('mlp')(print)",
            "line 2 .architecture 'mlp' is registered already",
        ),
    ],
)
def test_a_file_that_fails_is_told_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(SettingsError, match=message):
        plugins.load(tmp_path / "mine.py")
    assert plugins.loaded() == ()
    assert not [name for name in sys.modules if name.startswith("structens_plugin")]


@pytest.mark.parametrize("name", ["nothing.py", "mine.txt", "."])
def test_what_is_no_python_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(SettingsError, match=r"is no file, or its name does not end in \.py"):
        plugins.load(tmp_path / name)


def structens(*arguments: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which knows nothing of what is registered here."""
    command = [sys.executable, "-m", "structured_ensembles.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.mark.slow
def test_the_command_its_workers_and_later_processes_know_what_a_plugin_registers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], forget: Callable[[Registry], None]
) -> None:
    forget(TERMS)
    forget(ARCHITECTURES)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)
    common = ("--architecture", "tiny", "--epochs", "1", "--search-steps", "2", "--members", "2")
    own = (*common, "--plugin", "mine.py", "--diversity", "spread=0.1")

    refused = invoke("fit", *common)
    assert refused.exit_code == 2
    assert "register it, on the command line by --plugin FILE.py" in refused.stderr

    fitted = invoke("fit", *own, "--out", "run")
    assert fitted.exit_code == 0, fitted.stderr
    artefact = "run/structured.safetensors"
    shown = structens("inspect", artefact, "--plugin", "mine.py", "--json", cwd=tmp_path, environment=environment)
    assert json.loads(shown.stdout)["architecture"] == "tiny"

    grid = ("--methods", "structured", "--seeds", "1", "--jobs", "2", "--out", "grid")
    compared = invoke("compare", *own, *grid)
    assert compared.exit_code == 0, compared.stderr
    assert [run["error"] for run in json.loads((tmp_path / "grid/results.json").read_text())] == [None]


def test_a_plugin_adds_methods_strategies_and_data_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[Registry], None]
) -> None:
    for table in (METHODS, STRATEGIES, FORMATS):
        forget(table)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MORE)
    (tmp_path / "images.raw").write_bytes(bytes(range(256)) * 5)
    common = ("--plugin", "mine.py", "--data", "images.raw", "--architecture", "mlp", "--epochs", "1", "--jobs", "1")

    compared = invoke("compare", *common, "--methods", "twins", "--members", "2", "--seeds", "1", "--out", "grid")
    assert compared.exit_code == 0, compared.stderr
    assert "twins" in compared.output

    learned = invoke("continual", *common, "--strategies", "restless", "--tasks", "2", "--out", "stream")
    assert learned.exit_code == 0, learned.stderr
    assert "restless" in learned.output
