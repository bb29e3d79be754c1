"""How the command talks: plain sentences and tables, on a terminal and in a pipe."""

from __future__ import annotations

import json
import shlex
import shutil
import textwrap
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from structured_ensembles.evaluation.table import Row

_WIDTH = 100
_NOTICES = 2


def _width() -> int:
    """Columns for prose: those of the terminal, 80 in a pipe."""
    return min(shutil.get_terminal_size().columns, _WIDTH)


def say(text: str = "") -> None:
    """A paragraph on standard output; words, and so paths, are never broken."""
    click.echo(textwrap.fill(text, _width(), break_long_words=False, break_on_hyphens=False))


def head(text: str) -> None:
    """A heading, after an empty line."""
    click.secho(f"\n{text}", bold=True)


def line(text: str) -> None:
    """A line that is never folded: a command, or a file."""
    click.echo(text)


def note(notices: Sequence[str]) -> None:
    """Notices on standard error: all of a few, the first of many."""
    shown = notices if len(notices) <= _NOTICES + 1 else notices[:_NOTICES]
    for notice in shown:
        click.echo(f"Note: {notice}", err=True)
    if rest := len(notices) - len(shown):
        click.echo(f"Note: and {rest} more.", err=True)


def table(heads: Sequence[str], lines: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Columns of text, the first ``left`` of them to the left, the others to the right; nothing is cut off."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, name in enumerate(heads):
        made.add_column(name, justify="left" if i < left else "right", overflow="fold", no_wrap=i > 0)
    for cells in lines:
        made.add_row(*(Text(cell) for cell in cells))
    console = Console(highlight=False)
    console.print(made, width=max(console.width, _WIDTH), crop=False)


def results(rows: Sequence[Row]) -> None:
    """The table of results."""
    from rich.console import Console

    from structured_ensembles.evaluation.table import render

    say()
    render(rows, Console(highlight=False))
    say()


def data_json(value: Any) -> None:  # noqa: ANN401 (whatever JSON holds)
    """JSON on standard output."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def rejection(entry: Mapping[str, Any]) -> str:
    """What abstaining does, in a sentence."""
    found, metrics = entry["rejection"], entry["metrics"]
    if found is None:
        return "It has no threshold for abstaining, because it answered no held-out image right."
    images = metrics["examples"]
    rejected = round(found["rejected_share"] * images)
    caught = round(rejected * (found["wrong_share_of_rejected"] or 0))
    wrong = round((1 - metrics["accuracy"]) * images)
    kept = found["accuracy_of_kept"]
    return (
        f"Where its entropy is above {found['threshold']:.3g} nats, {entry['name']} abstains: on {rejected:,} of "
        f"{images:,} test images, {caught:,} of its {wrong:,} mistakes among them."
        + ("" if kept is None else f" Of the other images it gets {kept:.2%} right.")
    )


def quoted(path: Path) -> str:
    """A path as it can be pasted into a shell."""
    return shlex.quote(str(path))


def resuming(folder: Path, verb: str = "fit") -> str:
    """The command that goes on with the work in a folder."""
    return f"structens {verb} --resume --out {quoted(folder)}"
