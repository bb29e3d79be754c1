"""`structens predict`: what an ensemble says about images, and how sure it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from structured_ensembles.cli.printing import data_json, note, table
from structured_ensembles.cli.verb import Verb, plugin_option

_EXAMPLES = """
structens predict runs/demo/structured.safetensors photo.png
structens predict runs/demo/structured.safetensors *.png --json > answers.json
"""


@click.command(cls=Verb, examples=_EXAMPLES)
@click.argument("artefact", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@plugin_option
@click.option("--calibrated", is_flag=True, help="Correct the confidence by the temperature fitted on held-out images.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object an image.")
def predict(artefact: Path, images: tuple[str, ...], *, calibrated: bool, as_json: bool) -> None:
    """Say what IMAGES show, and how sure that is.

    IMAGES are files (PNG, JPEG, ...) or .npz archives with an array x or x_test; they are resized to what the network
    takes. For each image: the class, the CONFIDENCE (its probability), the predictive ENTROPY (0 where the ensemble is
    sure of one class, more where it wavers, in nats) and how the members VOTED. Above the entropy that the artefact was
    given for it, the ensemble abstains: a person should look.
    """
    notices, answers = answered(artefact, images, calibrated=calibrated)
    note(notices)
    if as_json:
        data_json(answers)
        return
    heads = ("image", "answer", "votes", "confidence", "entropy")
    table(heads, [_line(answer) for answer in answers], left=3)


def answered(
    artefact: Path, images: tuple[str, ...], *, calibrated: bool = False
) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Notices about the images, and what `predict` shows as JSON.

    Raises:
        ArtefactError: The artefact cannot be read.
        DataError: An image cannot.
    """
    from structured_ensembles.data.sources import read_images
    from structured_ensembles.evaluation.answers import answer, image_shape
    from structured_ensembles.prediction.ensemble import Ensemble

    ensemble = Ensemble.load(artefact)
    record = ensemble.record
    reading = read_images(images, image_shape(record))
    prediction = answer(ensemble, reading.images)
    if calibrated:
        prediction = ensemble.calibrated(prediction)
    threshold: Any = record.summary.get("rejection_threshold")
    answers = []
    for i, name in enumerate(reading.names):
        best = int(prediction.classes[i])
        entropy = float(prediction.predictive_entropy[i])
        answers.append(
            {
                "image": name,
                "class": record.classes[best],
                "confidence": float(prediction.probabilities[i, best]),
                "predictive_entropy": entropy,
                "mutual_information": float(prediction.mutual_information[i]),
                "votes": [record.classes[int(vote)] for vote in prediction.votes[:, i]],
                "abstain": None if threshold is None else entropy > threshold,
            }
        )
    return reading.notices, answers


def _line(answer: dict[str, Any]) -> list[str]:
    text = f"abstain ({answer['class']}?)" if answer["abstain"] else answer["class"]
    votes = ", ".join(f"{count} x {name}" for name, count in Counter(answer["votes"]).most_common())
    return [answer["image"], text, votes, f"{answer['confidence']:.1%}", f"{answer['predictive_entropy']:.3f}"]
