"""From the results of a stream to its page, in the style of an evaluation's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup

from structured_ensembles.continual.results import curves, tables
from structured_ensembles.continual.results.records import StreamRun
from structured_ensembles.continual.results.report import charts, words
from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.report.page import environment
from structured_ensembles.files.whole import write_whole

_HERE = Path(__file__).parent


def write(path: str | Path, runs: Sequence[StreamRun], data: str, settings: Mapping[str, object]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The HTML file; one that exists is replaced.
        runs: Of one stream, every one once; ``structured`` comes first in words and pictures, or else the first one
            that has a result.
        data: What the tasks were made of, as people call it.
        settings: What repeats the runs, in the order of the table.

    Raises:
        DataError: There is no result, a stream is not finished, the streams differ, or channels have an owner that is
            no task.
    """
    write_whole(Path(path), render(runs, data, settings))


def render(runs: Sequence[StreamRun], data: str, settings: Mapping[str, object]) -> str:
    """The page as text; see `write`."""
    results, owners = curves.by_strategy(runs), curves.owners(runs)
    curves.check(results)
    first = curves.subject(results)
    tasks = curves.task_names(results[first])
    _check_owners(owners, len(tasks))
    return (
        environment(_HERE)
        .get_template("stream.html.j2")
        .render(
            results=results,
            data=data,
            settings=settings,
            owners=owners,
            proved=curves.proved(runs),
            failures=tables.failures(runs),
            notices=tables.notices(runs),
            unaided=tables.unaided(runs),
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
