"""From the results of a stream to its page, in the style of an evaluation's."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from structured_ensembles.continual.results import curves
from structured_ensembles.continual.results.report import charts, words
from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.report.page import environment
from structured_ensembles.files.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from structured_ensembles.continual.results.curves import Results

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class About:
    """What the page tells beside the results.

    Attributes:
        data: What the tasks were made of, as people call it.
        owners: By layer, which task owns each channel, -1 where none does; of one seed of the structured strategy.
        proved: The strategies of which every number that an earlier task depends on was compared, at the end and to
            the bit, with what it was when the task was learned, and found the same, for all seeds.
        failures: What could not be finished, and why, a sentence each.
        notices: What else a reader should know, a sentence each.
        unaided: How well it is answered without being told the task, a sentence or two for each strategy that can.
        settings: What repeats the run, in the order of the table.
    """

    data: str
    owners: Mapping[str, Sequence[int]] = field(default_factory=dict)
    proved: frozenset[str] = frozenset()
    failures: Sequence[str] = ()
    notices: Sequence[str] = ()
    unaided: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict)


def write(path: str | Path, results: Results, about: About) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The HTML file; one that exists is replaced.
        results: By strategy, one result for each seed; ``structured`` comes first in words and pictures, or else the
            first one.
        about: What else is told.

    Raises:
        DataError: There is no result, a stream is not finished, the streams differ, or channels have an owner that is
            no task.
    """
    write_whole(Path(path), render(results, about))


def render(results: Results, about: About) -> str:
    """The page as text; see `write`."""
    curves.check(results)
    first = curves.subject(results)
    tasks = curves.task_names(results[first])
    _check_owners(about.owners, len(tasks))
    return (
        environment(_HERE)
        .get_template("stream.html.j2")
        .render(
            results=results,
            about=about,
            subject=first,
            others=[name for name in results if name != first],
            tasks=tasks,
            labels=words.labels(tasks),
            charts=charts,
            curves=curves,
            words=words,
            stream_style=Markup((_HERE / "stream.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
            version=version("structured-ensembles"),
        )
    )


def _check_owners(owners: Mapping[str, Sequence[int]], tasks: int) -> None:
    for layer, strip in owners.items():
        strange = sorted({owner for owner in strip if not -1 <= owner < tasks})
        if strange:
            raise DataError(
                f"channels of {layer} are owned by task {strange[0]}: pass numbers from 0 to {tasks - 1}, or -1 where "
                "nobody owns them"
            )
