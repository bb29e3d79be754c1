from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from structured_ensembles import Ensemble
from structured_ensembles.cli.verbs.predict import _line
from structured_ensembles.data.sources import load

from ..conftest import invoke


@pytest.fixture
def images(here):
    """Three test images as an archive and one more as a file of another size."""
    digits = load("digits").test.images[:3]
    np.savez("some.npz", x=digits.numpy())
    Image.fromarray(np.full((9, 7, 3), 128, np.uint8)).save("grey.png")
    return digits


def test_json_says_what_the_ensemble_says(artefact, images):
    result = invoke("predict", artefact, "some.npz", "--json")
    answers = json.loads(result.stdout)
    prediction = Ensemble.load(artefact).predict(images)
    threshold = Ensemble.load(artefact).record.summary["rejection_threshold"]

    assert [answer["image"] for answer in answers] == ["some.npz[0]", "some.npz[1]", "some.npz[2]"]
    for i, answer in enumerate(answers):
        assert answer["class"] == str(int(prediction.classes[i]))
        assert answer["confidence"] == pytest.approx(float(prediction.probabilities[i].max()))
        assert answer["predictive_entropy"] == pytest.approx(float(prediction.predictive_entropy[i]))
        assert answer["votes"] == [str(int(vote)) for vote in prediction.votes[:, i]]
        assert answer["abstain"] == (float(prediction.predictive_entropy[i]) > threshold)


def test_the_table_has_a_line_for_each_image(artefact, images):
    result = invoke("predict", artefact, "some.npz", "grey.png")

    assert result.exit_code == 0
    for name in ("some.npz[0]", "some.npz[1]", "some.npz[2]", "grey.png"):
        assert name in result.stdout
    assert "Note: grey.png was made grey" in result.stderr


def test_members_are_counted_and_doubt_is_shown():
    answer = {"image": "a.png", "class": "7", "confidence": 0.5, "predictive_entropy": 1.0, "votes": ["7", "1", "7"]}

    assert _line({**answer, "abstain": True}) == ["a.png", "abstain (7?)", "2 x 7, 1 x 1", "50.0%", "1.000"]
    assert _line({**answer, "abstain": False})[1] == "7"
    assert _line({**answer, "abstain": None})[1] == "7"


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.png", "does not exist"), ("empty.png", "is empty"), ("text.png", "cannot read the image"), (".", "folder")],
)
def test_what_is_no_image_is_refused(artefact, images, refused, name, message):
    Path("empty.png").touch()
    Path("text.png").write_text("hello")

    assert message in refused("predict", artefact, name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _: b"", "is empty"),
        (lambda content: content[:1000], "cut short"),
        (lambda content: content[:-1], "cut short"),
        (lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:], "damaged"),
        (lambda _: b"\x80\x04N.", "is a pickle"),
        (lambda content: content.replace(b'ensembles":"1"', b'ensembles":"9"', 1), "format 9"),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "inspect", "evaluate"])
def test_what_is_no_sound_artefact_is_refused(artefact, images, refused, verb, damage, message):
    Path("bad.safetensors").write_bytes(damage(artefact.read_bytes()))
    rest = {"predict": ["some.npz"], "inspect": [], "evaluate": ["--data", "digits"]}[verb]

    assert message in refused(verb, "bad.safetensors", *rest)


def test_the_architecture_must_be_known_by_name(artefact, images, refused):
    known = Ensemble.load(artefact)
    Ensemble(known.members, replace(known.record, network=None)).save("mine.safetensors")

    assert "architecture" in refused("predict", "mine.safetensors", "some.npz")
