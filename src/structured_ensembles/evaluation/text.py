"""Many runs as text: tables for a page, for other programs and for a terminal, and what is told of several seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from structured_ensembles.evaluation.statistics import Summary, grouped

if TYPE_CHECKING:
    from rich.console import Console


if TYPE_CHECKING:
    from rich.console import Console


def csv_table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """A header and a line for each row, for any program that reads CSV; what a row lacks is empty."""
    written = io.StringIO()
    writer = csv.DictWriter(written, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """A table in Markdown: so many columns of names, then numbers."""
    ruler = [*["---"] * names, *["---:"] * (len(head) - names)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *rows))


def bullets(lines: Iterable[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 member", "4 members"."""
    return f"{count} {noun}{'s' * (count > 1)}"


def by_seed(told: Iterable[tuple[str, int, str]]) -> list[str]:
    """What runs told, one line for all seeds of an arm that told the same.

    Args:
        told: What an arm is called, the seed, and what was told.
    """
    seeds = grouped(((arm, text), seed) for arm, seed, text in told)
    return [
        f"{arm}, seed{'s' * (len(which) > 1)} {', '.join(map(str, which))}: {text}"
        for (arm, text), which in seeds.items()
    ]


def size(count: float) -> str:
    """Bytes, with three digits and a decimal prefix."""
    return "{} {}B".format(*scaled(count))


def finished(row: Summary[Any]) -> str:
    """How many seeds finished, and of how many where some failed: "5", "4/5"."""
    return f"{row.seeds - row.failed}/{row.seeds}" if row.failed else str(row.seeds)


def seconds(row: Summary[Any]) -> str:
    """How long one seed took, in the mean."""
    return duration(row.values["seconds"].mean) if "seconds" in row.values else NONE


def measured(row: Summary[Any], name: str, form: str, scale: float = 1, between: str = " ± ") -> str:
    """The mean of a value and its deviation, unless some finished seed lacks it.

    Args:
        row: Of the table.
        name: Of the value.
        form: How a number is printed; a deviation has no sign.
        scale: What numbers are multiplied by.
        between: Mean and deviation.
    """
    spread = row.values.get(name)
    if spread is None or spread.count < row.seeds - row.failed:
        return NONE  # a mean over other seeds than those of the cells beside it would mislead
    mean = form.format(scale * spread.mean)
    unsigned = form.replace("+", "")
    return mean if spread.deviation is None else mean + between + unsigned.format(scale * spread.deviation)


def columns(*heads: str) -> Table:
    """A table for a terminal, still without rows: names, which may be folded, and numbers under these heads."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("", overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def show(table: Table, console: Console, below: Iterable[str] = ()) -> None:
    """Print a table, at most `WIDTH` columns wide unless the console is wider, and lines below it."""
    natural = Measurement.get(console, console.options.update(width=10**4), table).maximum
    table.width = min(natural, max(console.width, WIDTH))
    console.print(table, crop=False)
    for line in below:
        console.print(Text(line))


def scaled(number: float) -> tuple[str, str]:
    """Three digits and a decimal prefix: 1234567 is '1.23' and 'M', 512 is '512' and ''."""
    *prefixes, last = ("", "k", "M", "G", "T", "P")
    for prefix in prefixes:
        digits = f"{number:.3g}"
        if float(digits) < 1000:
            return digits, prefix
        number /= 1000
    return f"{number:.0f}", last


def duration(seconds: float) -> str:
    """Seconds as people say them: 99.9s, 2m 05s, 3h 07m."""
    if seconds < 99.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


NONE = "-"


WIDTH = 100
"""Columns the table may use even where the console says it has fewer, as a file or a pipe does: no number is cut."""
