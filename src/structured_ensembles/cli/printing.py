"""How the command talks: plain sentences and tables, on a terminal and in a pipe."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from structured_ensembles.evaluation import render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from structured_ensembles.evaluation import Row

_WIDTH = 100
_NOTICES = 2


def console(*, error: bool = False) -> Console:
    """A console that leaves words as they are."""
    return Console(highlight=False, markup=False, emoji=False, stderr=error)


def say(text: str = "") -> None:
    """A paragraph on standard output, at most 100 columns wide."""
    shown = console()
    shown.print(Text(text), width=min(shown.width, _WIDTH))


def head(text: str) -> None:
    """A heading, after an empty line."""
    console().print(Text(f"\n{text}", style="bold"), soft_wrap=True)


def line(text: str) -> None:
    """A line that is never folded: a path or a command."""
    console().print(Text(text), soft_wrap=True)


def note(notices: Sequence[str]) -> None:
    """Notices on standard error: all of a few, the first of many."""
    shown = notices if len(notices) <= _NOTICES + 1 else notices[:_NOTICES]
    for notice in shown:
        console(error=True).print(Text(f"Note: {notice}"), soft_wrap=True)
    if rest := len(notices) - len(shown):
        console(error=True).print(Text(f"Note: and {rest} more like these."), soft_wrap=True)


def table(heads: Sequence[str], lines: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Columns of text, the first ``left`` of them to the left, the others to the right; nothing is cut off."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, name in enumerate(heads):
        made.add_column(name, justify="left" if i < left else "right", overflow="fold", no_wrap=i > 0)
    for cells in lines:
        made.add_row(*(Text(cell) for cell in cells))
    shown = console()
    shown.print(made, width=max(shown.width, _WIDTH), crop=False)


def results(rows: Sequence[Row]) -> None:
    """The table of results."""
    say()
    render(rows, console())
    say()


def data_json(value: Any) -> None:  # noqa: ANN401 (whatever JSON holds)
    """JSON on standard output."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def rejection(entry: dict[str, Any]) -> str:
    """What abstaining does, in a sentence."""
    found = entry["rejection"]
    if found is None:
        return "It has no threshold for abstaining: no held-out image was answered right."
    start = f"Where its predictive entropy is above {found['threshold']:.3g} nats, it abstains: on"
    if not found["rejected_share"]:
        return f"{start} none of the test images."
    wrong = f"{found['wrong_share_of_rejected']:.0%} of those it would have got wrong"
    kept = found["accuracy_of_kept"]
    rest = "" if kept is None else f"; of the others it gets {kept:.2%} right"
    return f"{start} {found['rejected_share']:.1%} of the test images. {wrong}{rest}."


def quoted(path: Path) -> str:
    """A path as it can be pasted into a shell."""
    return shlex.quote(str(path))
