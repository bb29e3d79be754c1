"""Streams of tasks in tables and plain words: for a page of documentation and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from structured_ensembles.continual.results.records import PARTS, StreamRun, summarise
from structured_ensembles.continual.streams.untold import BATCH
from structured_ensembles.evaluation import text
from structured_ensembles.evaluation.statistics import Summary
from structured_ensembles.evaluation.text import NONE

if TYPE_CHECKING:
    from rich.console import Console

_UNTOLD = "untold_"


@dataclass(frozen=True)
class _Column:
    """A value, how it is headed, on a page and in a terminal, and how it is printed."""

    value: str
    title: str
    short: str = ""
    form: str = "{:.2f}"
    scale: float = 100


_AVERAGE = _Column("average_accuracy", "average accuracy %", "average\naccuracy %")
_TOTAL = _Column("total_accuracy", "total accuracy %")
_LOPEZ_PAZ = _Column("backward_transfer_lopez_paz", "backward transfer (Lopez-Paz)", form="{:+.2f}")
_DIAZ = _Column("backward_transfer_diaz_rodriguez", "backward transfer (Diaz-Rodriguez)", form="{:+.2f}")
_FORGETTING = _Column("forgetting", "forgetting", "forgotten")
_TRANSFER = _Column("transfer", "transfer", "transfer", form="{:+.2f}")
_INTRANSIGENCE = _Column("intransigence", "intransigence", "intransigence", form="{:+.2f}")
_RATIO = _Column("ratio", "of separate networks", "of\nseparate", form="{:.2f}x", scale=1)
_EFFICIENCY = _Column("model_size_efficiency", "size efficiency", scale=1)

_PAGE = (_AVERAGE, _TOTAL, _LOPEZ_PAZ, _DIAZ, _FORGETTING, _TRANSFER, _INTRANSIGENCE)
_TERMINAL = (_AVERAGE, _FORGETTING, _TRANSFER, _INTRANSIGENCE)

_MEASURED = (
    "Measured: mean ± sample standard deviation over the seeds. After each task every task so far is measured on its "
    "test images; nothing is copied from an earlier row. Seeds: how many finished, of how many where some failed."
)
_WORDS = (
    "Average accuracy: over all tasks, at the end. Total accuracy: over all tasks and the whole stream. The others are "
    "in points of accuracy. Backward transfer: what tasks gained since they were learned, at the end (Lopez-Paz and "
    "Ranzato) or over the whole stream (Diaz-Rodriguez and others). Forgetting: what they lost since their best. "
    "Transfer: how much better a task is learned than by a network of its own. Intransigence: how much worse than by "
    "joint training on all tasks so far."
)
_BYTES = (
    "Bytes that are needed to answer for all tasks and to learn the next one, at the end of the stream: the mean over "
    "the seeds. Size efficiency: 1 if memory does not grow with the tasks."
)


def markdown(runs: Sequence[StreamRun]) -> str:
    """A part of a page: accuracies, bytes, and which runs failed; headings start at the third level.

    Args:
        runs: Every one once.

    Raises:
        DataError: A cell occurs twice.
    """
    rows = summarise(runs)
    parts = [
        _MEASURED,
        *("### Accuracy", _WORDS, _accuracies(rows)),
        *("### Memory", _BYTES, _sizes(rows)),
        *(["### Without a task id", text.bullets(untold)] if (untold := unaided(runs)) else []),
        *(["### Notices", text.bullets(told)] if (told := notices(runs)) else []),
        *("### Failed runs", text.bullets(failures(runs)) or "None: every run finished."),
    ]
    return "\n\n".join(parts) + "\n"


def failures(runs: Sequence[StreamRun]) -> list[str]:
    """The runs that failed, one line for all seeds of a strategy that failed for the same reason."""
    return text.by_seed((run.cell.strategy, run.cell.seed, run.error) for run in runs if run.error is not None)


def notices(runs: Sequence[StreamRun]) -> list[str]:
    """What runs had to tell, one line for all seeds of a strategy that told the same."""
    return text.by_seed((run.cell.strategy, run.cell.seed, notice) for run in runs for notice in run.notices)


def unaided(runs: Sequence[StreamRun]) -> list[str]:
    """How well strategies answer that are not told the task, a sentence or two each; those that cannot are left out."""
    return [_unaided(row) for row in summarise(runs) if f"{_UNTOLD}task" in row.values]


def _unaided(row: Summary[str]) -> str:
    found = {name.removeprefix(_UNTOLD): one.mean for name, one in row.values.items() if name.startswith(_UNTOLD)}
    share = {name: f"{100 * value:.1f} %" for name, value in found.items()}
    return (
        f"{row.arm} finds the task of {share['task']} of single images, and of {share['batch']} of batches of "
        f"{BATCH}. Task and class are right for {share['right']} of the images, the class for {share['told']} when the "
        f"task is told. AUROC of a task's images against the others': {found['auroc']:.3f}; of known tasks against one "
        f"that is new: {found['novelty']:.3f}. The statistics for this take {text.size(found['nbytes'])} more."
    )


def _accuracies(rows: Sequence[Summary[str]]) -> str:
    head = ["strategy", "seeds", *(column.title for column in _PAGE), "time"]
    lines = [[*_name(row), *(_cell(row, column) for column in _PAGE), text.seconds(row)] for row in rows]
    return text.markdown_table(head, lines)


def _sizes(rows: Sequence[Summary[str]]) -> str:
    head = ["strategy", "seeds", "bytes", _RATIO.title, *PARTS, _EFFICIENCY.title]
    return text.markdown_table(
        head,
        [
            [*_name(row), _bytes(row, "bytes"), _cell(row, _RATIO)]
            + [_bytes(row, f"bytes_{part}") for part in PARTS]
            + [_cell(row, _EFFICIENCY)]
            for row in rows
        ],
    )


def _name(row: Summary[str]) -> tuple[str, str]:
    return f"`{row.arm}`", text.finished(row)


def _cell(row: Summary[str], column: _Column, between: str = " ± ") -> str:
    return text.measured(row, column.value, column.form, column.scale, between)


def _bytes(row: Summary[str], name: str) -> str:
    return text.size(row.values[name].mean) if name in row.values else NONE


def console(runs: Sequence[StreamRun], console: Console) -> None:
    """Print a compact table, at most 100 columns wide unless the console is wider, and why runs failed.

    Accuracies are in per cent, differences between them in points.

    Args:
        runs: Every one once.
        console: Where to print.

    Raises:
        DataError: A cell occurs twice.
    """
    table = text.columns("seeds", *(column.short for column in _TERMINAL), "bytes", _RATIO.short, "time")
    for row in summarise(runs):
        numbers = [_cell(row, column, "±") for column in _TERMINAL]
        costs = [_bytes(row, "bytes"), _cell(row, _RATIO, "±"), text.seconds(row)]
        table.add_row(Text(row.arm), text.finished(row), *numbers, *costs)
    untold = [f"\nWithout a task id, {line}" for line in unaided(runs)]
    text.show(table, console, [*untold, *(f"failed: {line}" for line in failures(runs))])
