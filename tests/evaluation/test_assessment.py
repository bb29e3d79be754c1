from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from structured_ensembles.data.sources import ImageData, Split, Unlabelled
from structured_ensembles.errors import SettingsError
from structured_ensembles.evaluation import report
from structured_ensembles.evaluation.answers import evenly
from structured_ensembles.evaluation.assessment import assess, evaluation
from structured_ensembles.evaluation.blocks import footprint, selective
from structured_ensembles.evaluation.subject import Extent
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.options.catalogue import BLOCKS, METHODS
from structured_ensembles.options.presets import settings
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.prediction.ensemble import Ensemble

if TYPE_CHECKING:
    from pathlib import Path

SPEC = NetworkSpec("mlp", (1, 8, 8), 3, {"width": 8})
BRIEF = Extent(sample=6, epsilons=(0.02,), skipped=("cost",))


def drawn(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return Split((torch.rand(count, 1, 8, 8, generator=generator) + labels[:, None, None, None]) / 4, labels)


IMAGES = ImageData("blots", drawn(60, 0), drawn(30, 1), ("a", "b", "c"))


def fitted(method: str, folder: Path) -> tuple[Ensemble, Path]:
    training = TrainingSettings(epochs=2, batch_size=16)
    ensemble = METHODS[method](
        SPEC, **({} if method == "single" else {"members": 2}), settings=replace(settings(), training=training)
    )
    ensemble.fit(IMAGES.train, classes=IMAGES.classes)
    ensemble.save(folder / f"{method}.safetensors")
    return Ensemble.load(folder / f"{method}.safetensors"), folder / f"{method}.safetensors"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    return fitted("narrow", tmp_path_factory.mktemp("narrow"))


@pytest.mark.parametrize("method", ["single", "structured", "deep", "mc_dropout", "batch_ensemble"])
def test_every_method_can_be_measured_and_shown(method, tmp_path):
    ensemble, path = fitted(method, tmp_path)

    found = assess(ensemble, path, IMAGES, [], BRIEF, "ours")

    assert found.entry["failures"] == {}
    missing = {block for block in BLOCKS if found.entry[block] is None}
    assert missing == {"cost"}
    whole = json.loads(json.dumps(evaluation(IMAGES, [found.entry]), allow_nan=False))
    report.write(tmp_path / "report.html", whole, report.gallery(IMAGES.test.images, found.answers))
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_block_that_was_added_is_measured_with_the_others(narrow, monkeypatch):
    monkeypatch.setattr(BLOCKS, "_added", {})
    monkeypatch.setattr(BLOCKS, "_about", dict(BLOCKS._about))
    BLOCKS.add("unanimous", lambda subject: {"share": subject.answers.prediction.votes.eq(0).all(0).double().mean()})
    BLOCKS.add("broken", lambda subject: subject.no_such_thing)

    found = assess(*narrow, IMAGES, [], replace(BRIEF, skipped=("cost", "adversarial", "corruptions")), "ours").entry

    assert 0 <= found["unanimous"]["share"] <= 1
    assert found["broken"] is None
    assert "no_such_thing" in found["failures"]["broken"]
    assert found["calibration"] is not None


def test_the_answers_to_the_test_images_are_computed_once(narrow, monkeypatch):
    ensemble, path = narrow
    seen = []
    forward = type(ensemble).forward
    monkeypatch.setattr(type(ensemble), "forward", lambda self, x: seen.append(len(x)) or forward(self, x))

    assess(ensemble, path, IMAGES, [], replace(BRIEF, skipped=("cost", "adversarial", "corruptions")), "ours")

    assert sum(seen) == len(IMAGES.test) + 3 * BRIEF.sample  # and the three built-in sets


def test_a_measurement_that_fails_leaves_the_others(narrow, monkeypatch):
    ensemble, path = narrow

    def fail(*_arguments, **_more):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(selective, "selective", fail)
    broken = Unlabelled("torn", torch.full((4, 1, 8, 8), float("nan")), ())
    found = assess(ensemble, path, IMAGES, [broken, Unlabelled("none", torch.rand(0, 1, 8, 8), ())], BRIEF, "ours")

    assert found.entry["selective"] is None
    assert found.entry["failures"]["selective"] == "ZeroDivisionError: by zero"
    assert "NaN" in found.entry["failures"]["out_of_distribution: torn"]
    assert "out_of_distribution: none" in found.entry["failures"]
    assert [one["name"] for one in found.entry["out_of_distribution"]] == [
        "uniform noise",
        "constant",
        "shuffled patches",
    ]
    assert found.entry["calibration"]["uncalibrated"]["accuracy"] > 0


def test_an_ensemble_of_nan_is_told_and_the_page_is_written(narrow, tmp_path, monkeypatch):
    broken, path = Ensemble.load(narrow[1]), narrow[1]
    for parameter in broken.parameters():
        parameter.data.fill_(float("nan"))
    monkeypatch.setattr(footprint, "cost_in_use", lambda *_, **__: {"measured": 1})

    found = assess(broken, path, IMAGES, [], replace(BRIEF, skipped=()), "ours")
    assert found.entry["cost"] == {"measured": 1}
    shown = evaluation(IMAGES, [{**found.entry, "cost": None}])
    report.write(tmp_path / "report.html", shown, report.NOTHING)

    assert found.answers is None
    assert "NaN" in found.entry["failures"]["answers"]
    assert "NaN" in (tmp_path / "report.html").read_text()


def test_missing_files_of_corruptions_are_told(narrow, tmp_path):
    ensemble, path = narrow
    found = assess(ensemble, path, IMAGES, [], replace(BRIEF, corrupted=tmp_path), "ours")
    assert found.entry["corruptions"] is None
    assert "labels.npy" in found.entry["failures"]["corruptions"]


def test_one_class_only_in_the_test_set(narrow):
    ensemble, path = narrow
    one = replace(IMAGES, test=Split(IMAGES.test.images[:9:3], IMAGES.test.labels[:9:3]))
    assert assess(ensemble, path, one, [], BRIEF, "ours").entry["failures"] == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bins": 0}, "bins 0"),
        ({"sample": 0}, "sample 0"),
        ({"epsilons": (0.1, -0.1)}, "epsilon -0.1"),
        ({"skipped": ("costs",)}, "did you mean 'cost'"),
    ],
)
def test_impossible_extents_are_refused(wrong, message):
    with pytest.raises(SettingsError, match=message):
        Extent(**wrong)


@pytest.mark.parametrize(("count", "sample", "expected"), [(5, 9, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (4, 1, [0])])
def test_a_sample_is_spread_evenly(count, sample, expected):
    assert evenly(count, sample).tolist() == expected
