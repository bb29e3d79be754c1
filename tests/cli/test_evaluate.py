from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from structured_ensembles import Ensemble
from structured_ensembles.cli.evaluate import compared
from structured_ensembles.data import load
from structured_ensembles.errors import DataError
from structured_ensembles.evaluation import ece

from .conftest import invoke


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
