"""From the numbers to the page: a template, its style and its script in one file that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.entry import SCHEMA, VERSION
from structured_ensembles.evaluation.report import charts, side_by_side, words
from structured_ensembles.evaluation.report.gallery import Gallery
from structured_ensembles.evaluation.report.words import Json
from structured_ensembles.files.whole import write_whole

_HERE = Path(__file__).parent


def write(path: str | Path, evaluation: Json, gallery: Gallery) -> None:
    """Write the report, whole or not at all.

    Args:
        path: The HTML file; one that exists is replaced.
        evaluation: As in ``metrics.json``.
        gallery: Of the first predictor, on the test images of the evaluation; `NOTHING` where it gave no answers.

    Raises:
        DataError: The evaluation has another schema or version, or no predictor.
    """
    write_whole(Path(path), render(evaluation, gallery))


def render(evaluation: Json, gallery: Gallery) -> str:
    """The report as text; see `write`."""
    found = (evaluation.get("schema"), evaluation.get("version"))
    if found != (SCHEMA, VERSION):
        raise DataError(
            f"an evaluation of schema {found[0]!r}, version {found[1]!r}: pass {SCHEMA!r}, version {VERSION}"
        )
    if not evaluation["predictors"]:
        raise DataError("an evaluation of no predictor: measure one at least")
    return (
        environment()
        .get_template("template.html.j2")
        .render(
            evaluation=evaluation,
            data=evaluation["data"],
            predictors=evaluation["predictors"],
            gallery=gallery,
            comparison=side_by_side.lines(evaluation["predictors"]),
            charts=charts,
            words=words,
        )
    )


def _digest(script: str) -> str:
    """What the page's policy calls the one script that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


@cache
def environment(folder: Path | None = None) -> Environment:
    """What templates are made into a page with: the macros, the forms of numbers, the style and the script.

    Args:
        folder: Where other templates are, which may use those of this folder.
    """
    made = Environment(
        loader=FileSystemLoader([folder, _HERE] if folder else [_HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    forms = (
        words.percent,
        words.points,
        words.number,
        words.whole,
        words.size,
        words.short,
        words.milliseconds,
        words.mean,
    )
    made.filters.update({form.__name__: form for form in forms})
    script = (_HERE / "script.js").read_text(encoding="utf-8")
    made.globals.update(
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=_digest(script),
    )
    return made
