"""Files that are whole or not there."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write, within the block, what gets the name ``path`` at its end: a reader never meets half a file.

    It stands beside the goal and is on the disk before it is renamed: power may fail at any moment. A block that fails
    leaves nothing of it, and what was there before.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a text, as UTF-8, or bytes; the folder is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
