"""What is heavy is imported when it is first used: one fresh process says what each import brought."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
