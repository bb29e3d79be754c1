"""One progress bar, on standard error, for everything that takes long.

A terminal shows it moving; a file or a pipe gets its final line only.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Item = TypeVar("Item")

_silent: ContextVar[bool] = ContextVar("structured_ensembles_silent", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Show no progress within the block, final lines included."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


class Bar:
    """What a loop tells about itself; made by `bar`."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, steps: int = 1) -> None:
        """Some more steps are done."""
        self._progress.advance(self._task, steps)

    def note(self, text: str) -> None:
        """What is worth knowing just now, shown after the description."""
        self._progress.update(self._task, note=f"· {text}" if text else "")


@contextmanager
def bar(description: str, total: int | None, *, done: int = 0, count: bool = True) -> Iterator[Bar]:
    """Show one bar during the block, and leave its last state behind.

    Within the block other bars are off, so that nested loops do not write over each other.

    Args:
        description: What is being done.
        total: How many steps it takes, or None if nobody knows.
        done: How many of them are behind already.
        count: Whether the steps are worth a number of their own.
    """
    with _shown(description, total, done=done, count=count) as shown, quiet():
        yield shown


@contextmanager
def _shown(description: str, total: int | None, *, done: int, count: bool) -> Iterator[Bar]:
    console, silent = Console(stderr=True), _silent.get()
    live = console.is_interactive or console.is_jupyter
    progress = Progress(*_columns(count=count), console=console, disable=silent or not live)
    task = progress.add_task(description, total=total, completed=done, note="")
    started = time.monotonic()
    with progress:
        yield Bar(progress, task)
    if not (silent or live):
        _final_line(console, progress.tasks[task], time.monotonic() - started, count=count)


def _columns(*, count: bool) -> list[ProgressColumn]:
    counted: list[ProgressColumn] = [MofNCompleteColumn()] if count else []
    text = TextColumn("{task.description} {task.fields[note]}", markup=False)
    return [text, BarColumn(bar_width=24), *counted, TimeElapsedColumn()]


def _final_line(console: Console, state: Task, seconds: float, *, count: bool) -> None:
    steps = f" {state.completed:.0f}" if count else ""
    note = f" {state.fields['note']}" if state.fields["note"] else ""
    line = f"{state.description}{note}{steps} · {seconds:.1f} s"
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def track(iterable: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Go through something long and show how far it is.

    Args:
        iterable: What to go through.
        description: What is being done, for example ``"ranking channels"``.
        total: How many there are; None asks the iterable, if it knows.
    """
    known = total if total is not None else _length(iterable)
    # No `quiet` here: a loop left by an exception would keep it, for as long as the traceback keeps this generator.
    with _shown(description, known, done=0, count=True) as shown:
        for item in iterable:
            yield item
            shown.advance()


def _length(iterable: Iterable[Item]) -> int | None:
    try:
        return len(iterable)  # type: ignore[arg-type]  # asking is the only way to know
    except TypeError:
        return None
