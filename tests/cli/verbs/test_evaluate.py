from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from structured_ensembles import Ensemble
from structured_ensembles.cli import thoroughly
from structured_ensembles.cli.verbs.evaluate import compared
from structured_ensembles.data.sources import load
from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.metrics import ece

from ..conftest import invoke


def test_it_measures_what_fitting_measured(artefact, finished):
    wanted = json.loads((finished / "metrics.json").read_text())["methods"]["structured"]
    result = invoke("evaluate", artefact, "--data", "digits", "--json")
    found = json.loads(result.stdout)

    for key in ("metrics", "rejection", "disagreement", "best_epochs", "name"):
        assert found[key] == wanted[key]
    assert found["schema"] == 1


def test_the_table_shows_the_ensemble_beside_one_network(artefact):
    result = invoke("evaluate", artefact, "--data", "digits")

    assert result.exit_code == 0
    assert "whole network" in result.stdout
    assert "structured x 2" in result.stdout
    assert "450 test images" in result.stdout


def test_the_number_of_bins_can_be_chosen(artefact):
    found = json.loads(invoke("evaluate", artefact, "--data", "digits", "--json", "--bins", 50).stdout)
    test = load("digits").test
    probabilities = Ensemble.load(artefact).predict(test.images).probabilities

    assert found["metrics"]["ece"] == pytest.approx(ece(probabilities, test.labels, bins=50))
    assert found["calibration_bins"] == 50


def archive(path, shape=(8, 8), classes=10):
    images = np.zeros((2 * classes, *shape), np.uint8)
    labels = np.tile(np.arange(classes), 2)
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [((9, 9), 10, "add --image-size 8"), ((8, 8, 3), 10, "like those it was trained on"), ((8, 8), 7, "has 7 classes")],
)
def test_data_of_another_kind_are_refused(artefact, refused, shape, classes, message):
    archive("other.npz", shape, classes)

    assert message in refused("evaluate", artefact, "--data", "other.npz")


def test_images_can_be_brought_to_the_networks_size(artefact, here):
    archive("other.npz", (9, 9))

    assert invoke("evaluate", artefact, "--data", "other.npz", "--image-size", "8").exit_code == 0


def test_names_of_classes_are_compared(artefact):
    record, digits = Ensemble.load(artefact).record, load("digits")
    letters = tuple("abcdefghij")

    assert compared(record, digits) == []
    assert "matched by number" in compared(record, replace(digits, classes=letters))[0]
    with pytest.raises(DataError, match="calls a class 'j' that the artefact calls 'a'"):
        compared(replace(record, network=None, classes=letters), replace(digits, classes=letters[::-1]))
    with pytest.raises(DataError, match="calls a class '9' that the artefact calls '0'"):  # names that are numbers
        compared(record, replace(digits, classes=record.classes[::-1]))


QUICK = ("--all", "--sample", "5", "--epsilon", "0.02", "--skip", "cost")


def test_everything_is_written_for_programs_and_for_people(artefact, finished, here):
    np.savez("noise.npz", x=np.zeros((6, 5, 5), np.uint8))
    rival = finished / "single.safetensors"
    result = invoke(
        "evaluate", artefact, "--data", "digits", *QUICK, "--against", rival, "--ood", "noise.npz", "--out", "here/new"
    )

    assert result.exit_code == 0, result.output
    found = json.loads((here / "here/new/metrics.json").read_text())
    assert (found["schema"], found["version"]) == ("structens-evaluation", 1)
    assert [one["name"] for one in found["predictors"]] == ["structured", "single"]
    assert [one["name"] for one in found["predictors"][0]["out_of_distribution"]][-1] == "noise.npz"
    assert found["predictors"][0]["adversarial"]["images"] == 5
    assert "resized" in result.stderr
    assert "<svg" in (here / "here/new/report.html").read_text()
    assert (here / "here/new/widths.png").exists()
    assert "Of 1,000 answers it gives" in result.stdout


def test_it_writes_beside_the_artefact_and_never_over(artefact, here):
    own = here / "own.safetensors"
    own.write_bytes(artefact.read_bytes())
    everything_else = [option for block in ("corruptions", "adversarial") for option in ("--skip", block)]
    assert invoke("evaluate", own, "--data", "digits", *QUICK, *everything_else).exit_code == 0
    assert (here / "own-evaluation/report.html").exists()

    again = invoke("evaluate", own, "--data", "digits", *QUICK)
    assert again.exit_code == 2
    assert "own-evaluation exists: choose another with --out" in again.stderr


def test_unfamiliar_images_that_cannot_be_read_cost_only_themselves(artefact, here):
    (here / "torn.npz").write_bytes(b"PK")
    skipped = [option for block in ("corruptions", "adversarial") for option in ("--skip", block)]
    result = invoke(
        "evaluate", artefact, "--data", "digits", *QUICK, *skipped, "--ood", "torn.npz", "--out", "new", "--json"
    )

    assert result.exit_code == 0
    assert "--ood torn.npz is left out: " in result.stderr
    (entry,) = json.loads(result.stdout)["predictors"]
    assert "torn.npz" in entry["failures"]["out_of_distribution: torn.npz"]
    assert len(entry["out_of_distribution"]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ood", "noise.npz"), "--ood says how to measure everything: add --all"),
        (("--seed", "0", "--sample", "9"), "--sample, --seed says how to measure everything: add --all"),
        (("--all", "--epsilon", "-1"), "epsilon -1"),
        (("--all", "--skip", "costs"), "did you mean 'cost'"),
        (("--all", "--against", "nothing.safetensors"), "nothing.safetensors"),
        (("--all", "--bins", "0"), "0"),
        (("--all", "--cifar-c", "nowhere"), "nowhere/labels.npy"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(artefact, refused, options, message):
    assert message in refused("evaluate", artefact, "--data", "digits", *options)


def test_an_artefact_is_not_set_beside_itself(artefact, refused):
    assert "is given twice" in refused("evaluate", artefact, "--data", "digits", "--all", "--against", artefact)


def test_work_that_was_stopped_leaves_no_folder_in_the_way(artefact, here, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(thoroughly, "assess", stop)
    assert invoke("evaluate", artefact, "--data", "digits", *QUICK, "--out", "deep/new").exit_code == 130
    assert not (here / "deep").exists()
