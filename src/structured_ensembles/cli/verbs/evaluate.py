"""`structens evaluate`: measure an artefact on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from structured_ensembles.cli.options import declared, options_of
from structured_ensembles.cli.printing import data_json, line, note, rejection, results, say
from structured_ensembles.cli.verb import Verb, plugin_option
from structured_ensembles.options.catalogue import BLOCKS
from structured_ensembles.options.plans import Plan

if TYPE_CHECKING:
    from structured_ensembles.artefact.file import Record
    from structured_ensembles.data.sources import ImageData
    from structured_ensembles.prediction.ensemble import Ensemble

_EXAMPLES = """
structens evaluate runs/demo/structured.safetensors --data digits
structens evaluate runs/demo/structured.safetensors --data digits --all --against runs/demo/deep.safetensors
structens evaluate runs/mnist/structured.safetensors --data mnist.npz --all --ood FashionMNIST
"""
_PATH = click.Path(path_type=Path)
_ONLY_WITH_ALL = ("against", "ood", "sample", "epsilon", "cifar_c", "seed", "skip", "out")


@click.command(cls=Verb, examples=_EXAMPLES)
@click.argument("artefact", type=_PATH)
@click.option("--data", required=True, metavar="DATA", help="What to measure on: its test images, named as for fit.")
@declared(options_of(Plan)["image_size"])
@click.option("--bins", type=click.IntRange(1), default=15, show_default=True, help="Of the calibration error.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as metrics.json has it.")
@click.option("--all", "everything", is_flag=True, help="Measure everything, and write metrics.json and report.html.")
@click.option("--against", multiple=True, type=_PATH, help="With --all: another artefact, set beside it. Repeatable.")
@click.option(
    "--ood",
    multiple=True,
    metavar="DATA",
    help="With --all: images of something else, which it should doubt: a name as for --data, an .npz file, an image or "
    "a folder of images. Repeatable. Noise, constant images and shuffled patches are always tried.",
)
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="With --all: attack and corrupt so many test images, at most.",
)
@click.option(
    "--epsilon",
    multiple=True,
    type=float,
    help="With --all: how far an attack may move a pixel of [0, 1]. Repeatable. [0.001 0.01 0.02 0.1 0.5]",
)
@click.option("--cifar-c", type=_PATH, help="With --all: a folder with the files of CIFAR-10-C or CIFAR-100-C.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="With --all: of attacks and corruptions."
)
@click.option(
    "--skip",
    multiple=True,
    metavar="BLOCK",
    help=f"With --all: leave out {', '.join([*BLOCKS][:-1])} or {[*BLOCKS][-1]}. Repeatable.",
)
@plugin_option
@click.option("--out", type=_PATH, help="With --all: where to write. [beside the artefact, NAME-evaluation]")
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    artefact: Path,
    data: str,
    image_size: int | None,
    bins: int,
    *,
    as_json: bool,
    everything: bool,
    **thorough: Any,  # noqa: ANN401 (the options that --all takes)
) -> None:
    """Measure an ARTEFACT on the test images of DATA.

    The table shows accuracy; how good the probabilities are (NLL, Brier and ECE, the calibration error: the lower the
    better); the mean ENTROPY of right and of wrong answers, which should lie far apart; and what the ensemble costs
    beside one whole network.

    With --all also how well it tells what it does not know (abstaining, unfamiliar images), how it holds under attack
    (FGSM, PGD) and in bad pictures (19 corruptions), what it costs in memory and time, and how its members differ: in
    metrics.json, and in report.html for people.
    """
    from structured_ensembles.cli import thoroughly
    from structured_ensembles.data import sources as datasets
    from structured_ensembles.errors import SettingsError
    from structured_ensembles.prediction.ensemble import Ensemble

    unsaid = click.core.ParameterSource.DEFAULT
    given = [f"--{name.replace('_', '-')}" for name in _ONLY_WITH_ALL if ctx.get_parameter_source(name) is not unsaid]
    if given and not everything:
        raise SettingsError(f"{', '.join(given)} says how to measure everything: add --all")
    images = datasets.load(data, image_size=image_size)
    paths = [artefact, *thorough.pop("against")]
    if twice := [path for at, path in enumerate(paths) if path in paths[:at]]:
        raise SettingsError(f"{twice[0]} is given twice: name every artefact once")
    ensembles = {path: Ensemble.load(path) for path in paths}
    notices = [notice for ensemble in ensembles.values() for notice in compared(ensemble.record, images)]
    note((*images.notices, *dict.fromkeys(notices)))
    if everything:
        thoroughly.evaluate(ensembles, images, bins=bins, as_json=as_json, **thorough)
    else:
        _briefly(artefact, ensembles[artefact], images, bins, as_json=as_json)


def _briefly(artefact: Path, ensemble: Ensemble, images: ImageData, bins: int, *, as_json: bool) -> None:
    from structured_ensembles.evaluation.answers import ask_about
    from structured_ensembles.evaluation.cost import untrained
    from structured_ensembles.evaluation.entry import evaluated, row, unfitted
    from structured_ensembles.experiments import run

    entry = evaluated(ensemble, ask_about(ensemble, images.measured), bins=bins)
    if as_json:
        data_json({"schema": run.SCHEMA, "artefact": str(artefact), "data": images.name, **entry})
        return
    line(f"{artefact} on the {len(images.test):,} test images of {images.name}")
    network = ensemble.record.network
    results([*([unfitted(untrained(network, images.classes).size())] if network else []), row(entry)])
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
    if numbers in (there, known) and set(there) != set(known):
        return [f"the classes of {images.name} and of the artefact were matched by number: one side has no names."]
    pair = next((one, other) for one, other in zip(there, known, strict=True) if one != other)
    raise DataError(f"{images.name} calls a class {pair[0]!r} that the artefact calls {pair[1]!r}: they must agree")


def _remedy(images: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if images[0] == shape[0] and shape[1] == shape[2]:
        return f"add --image-size {shape[1]}"
    return "measure it on images like those it was trained on"
