"""What is heavy is imported when it is first used: one fresh process says what each import brought."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import structured_ensembles

STEPS = {
    "the catalogue": "from structured_ensembles.options.catalogue import TERMS",
    "a term": "TERMS['kl']",
    "networks": "import structured_ensembles.networks",
    "training": "import structured_ensembles.training.loop",
    "the form of another library": "import structured_ensembles.implicit.torch_uncertainty",
}
HEAVY = ("torch", "torchvision", "timm", "lightning", "torch_uncertainty")


@pytest.fixture(scope="module")
def brought():
    """By step, one after the other in one process: which heavy libraries are there."""
    lines = ["import json, sys", "seen = {}"]
    for name, step in STEPS.items():
        lines += [step, f"seen[{name!r}] = [name for name in {HEAVY} if name in sys.modules]"]
    code = "\n".join([*lines, "print(json.dumps(seen))"])
    return json.loads(subprocess.check_output([sys.executable, "-c", code]))  # noqa: S603


def test_the_names_of_what_can_be_chosen_come_without_torch(brought):
    assert brought["the catalogue"] == []
    assert brought["a term"] == ["torch"]


def test_networks_come_without_torchvision_and_timm(brought):
    assert brought["networks"] == ["torch"]


def test_training_comes_without_lightning(brought):
    assert brought["training"] == ["torch"]


def test_the_form_of_another_library_comes_without_it(brought):
    assert brought["the form of another library"] == ["torch"]


LIGHT = [
    "errors",
    "registry",
    "progress",
    "plugins",
    "files",
    "options",
    "cli.options",
    "cli.configuration",
    "cli.main",
]
"""What must load without torch: modules, and packages with all of theirs."""


def test_what_is_chosen_and_how_files_are_kept_load_without_torch():
    root = Path(structured_ensembles.__file__).parent
    named = [name for place in LIGHT for name in _modules(root, place)]
    code = f"import importlib, sys\nfor name in {named}: importlib.import_module(name)\nprint('torch' in sys.modules)"

    assert "structured_ensembles.options.streams" in named
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"  # noqa: S603


def _modules(root, place):
    path = root.joinpath(*place.split("."))
    inner = [f".{file.stem}" for file in path.glob("*.py")] if path.is_dir() else [""]
    return [f"structured_ensembles.{place}{name}" for name in inner if name != ".__init__"]


# Loaded by name or where it is used, so that nothing but the text of the source shows who knows a library.
KNOWN_BY = {
    "torch_uncertainty": {"implicit/torch_uncertainty.py"},
    "timm": {"networks/external.py"},
    "torchvision": {"networks/external.py", "data/sources/named.py"},
    "torch_pruning": {"channels/topology.py"},
    "lightning": {"training/_lightning.py"},
    "avalanche": {"continual/avalanche.py"},
    "safetensors": {"artefact/file.py", "continual/learner/store.py"},
    "ray": set(),
    "submitit": set(),
}


@pytest.mark.parametrize("library", KNOWN_BY)
def test_a_library_is_known_only_where_it_is_meant_to_be(library):
    root = Path(structured_ensembles.__file__).parent
    loads = re.compile(rf"^\s*(?:import|from) {library}\b|import_module\([^)]*[\"']{library}\b", re.MULTILINE)
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if loads.search(path.read_text("utf-8"))}

    assert found == KNOWN_BY[library]
