"""`structens evaluate`: measure an artefact on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from structured_ensembles.cli.options import IMAGE_SIZE, declared
from structured_ensembles.cli.verb import Verb

if TYPE_CHECKING:
    from structured_ensembles.artefact import Record
    from structured_ensembles.data import ImageData

_EXAMPLES = """
structens evaluate runs/demo/structured.safetensors --data digits
structens evaluate runs/mnist/structured.safetensors --data mnist.npz --bins 30 --json
"""


@click.command(cls=Verb, examples=_EXAMPLES)
@click.argument("artefact", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="DATA", help="What to measure on: its test images, named as for fit.")
@declared(IMAGE_SIZE)
@click.option("--bins", type=click.IntRange(1), default=15, show_default=True, help="Of the calibration error.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as metrics.json has it for a method.")
def evaluate(artefact: Path, data: str, image_size: int | None, bins: int, *, as_json: bool) -> None:
    """Measure an ARTEFACT on the test images of DATA.

    The table shows accuracy; how good the probabilities are (NLL, Brier and ECE, the calibration error: the lower the
    better); the mean ENTROPY of right and of wrong answers, which should lie far apart; and what the ensemble costs
    beside one whole network.
    """
    from structured_ensembles import data as datasets
    from structured_ensembles import run
    from structured_ensembles.cli.printing import data_json, line, note, rejection, results, say
    from structured_ensembles.prediction import Ensemble

    ensemble = Ensemble.load(artefact)
    images = datasets.load(data, image_size=image_size)
    note((*images.notices, *compared(ensemble.record, images)))
    prediction = run.answer(ensemble, images.test.images)
    entry = run.evaluated(ensemble, prediction, images.test.labels, bins=bins)
    if as_json:
        data_json({"schema": run.SCHEMA, "artefact": str(artefact), "data": images.name, **entry})
        return
    line(f"{artefact} on the {len(images.test):,} test images of {images.name}")
    network = ensemble.record.network
    results([*([run.unfitted(run.dense(network, images.classes))] if network else []), run.row(entry)])
    say(rejection(entry))


def compared(record: Record, images: ImageData) -> list[str]:
    """What a user should know about data that an artefact can be measured on.

    Raises:
        DataError: It cannot: the images have another shape, or their classes are others.
    """
    from structured_ensembles.errors import DataError

    shape = tuple(record.input_shape)
    if images.input_shape != shape:
        raise DataError(
            f"the images of {images.name} are {images.input_shape} (channels, height, width), and the artefact takes "
            f"{shape}: {_remedy(images.input_shape, shape)}"
        )
    there, known = images.classes, record.classes
    if len(there) != len(known):
        raise DataError(f"{images.name} has {len(there)} classes, and the artefact tells {len(known)} apart")
    if there == known:
        return []
    numbers = tuple(str(label) for label in range(len(known)))
    if numbers in (there, known):
        return [f"the classes of {images.name} and of the artefact were matched by number: one side has no names."]
    pair = next((one, other) for one, other in zip(there, known, strict=True) if one != other)
    raise DataError(f"{images.name} calls a class {pair[0]!r} that the artefact calls {pair[1]!r}: they must agree")


def _remedy(images: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if images[0] == shape[0] and shape[1] == shape[2]:
        return f"add --image-size {shape[1]}"
    return "measure it on images like those it was trained on"
