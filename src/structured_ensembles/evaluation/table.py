"""The table that sets predictors side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from structured_ensembles.evaluation.metrics import Metrics
from structured_ensembles.evaluation.text import NONE, columns, duration, scaled, show
from structured_ensembles.networks.sizes import Cost

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Row:
    """One predictor.

    Attributes:
        name: What the reader calls it.
        metrics: What it reached; None if it was only sized, not trained.
        cost: What it costs.
        seconds: How long fitting took; None where nothing was fitted, or nobody knows.
    """

    name: str
    metrics: Metrics | None
    cost: Cost
    seconds: float | None = None


@dataclass(frozen=True)
class _Column:
    """One number of the metric columns: how to read and print it, and which end of it is the better one."""

    read: Callable[[Metrics], float]
    form: str
    better: Callable[[Sequence[float]], float]


_MEASURES = (
    _Column(lambda m: 100 * m.accuracy, "{:.2f}", max),
    _Column(lambda m: m.nll, "{:.3f}", min),
    _Column(lambda m: m.brier, "{:.3f}", min),
    _Column(lambda m: m.ece, "{:.3f}", min),
    _Column(lambda m: m.entropy_right, "{:.2f}", min),
    _Column(lambda m: m.entropy_wrong, "{:.2f}", max),
)

_HEADS = (
    *("accu-\nracy %", "NLL", "Brier", "ECE", "entropy\nright/wrong"),
    *("para-\nmeters", "bytes\non disk", "FLOPs", "time"),
)


def render(rows: Sequence[Row], console: Console) -> None:
    """Print the rows, at most 100 columns wide unless the console is wider; long names are folded.

    The best value of each metric is bold, all of them where they look alike. Bytes on disk are also given as a multiple
    of the first row's. The two entropies are those of right and of wrong answers, in nats.

    Args:
        rows: The first is what the others are compared with.
        console: Where to print; bold is left out where it is no terminal.
    """
    table = columns(*_HEADS)
    measured = [_cells([row.metrics for row in rows], measure) for measure in _MEASURES]
    for i, row in enumerate(rows):
        *metrics, right, wrong = (column[i] for column in measured)
        table.add_row(Text(row.name), *metrics, Text.assemble(right, "/", wrong), *_costs(row, rows[0].cost))
    show(table, console)


def _cells(metrics: Sequence[Metrics | None], measure: _Column) -> list[Text]:
    """One measure of every row; the best are bold if there is more than one row to be better than."""
    values = [None if one is None else measure.read(one) for one in metrics]
    known = [value for value in values if value is not None and value == value]  # noqa: PLR0124 - NaN is not itself
    best = measure.form.format(measure.better(known)) if len(known) > 1 else None
    texts = [measure.form.format(value) if value in known else NONE for value in values]
    return [Text(text, style="bold" if text == best else "") for text in texts]


def _costs(row: Row, first: Cost) -> tuple[str, ...]:
    cost = row.cost
    digits, prefix = scaled(cost.bytes)
    ratio = f" {cost.bytes / first.bytes:.2f}x" if first.bytes else ""
    seconds = NONE if row.seconds is None else duration(row.seconds)
    return "".join(scaled(cost.parameters)), f"{digits} {prefix}B{ratio}", "".join(scaled(cost.flops)), seconds
