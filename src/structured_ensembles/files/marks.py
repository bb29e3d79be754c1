"""Whose a folder is: short texts that tell its data, or its network, from others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structured_ensembles.errors import SettingsError
from structured_ensembles.files.whole import write_whole

if TYPE_CHECKING:
    from pathlib import Path


DATA = "data.sha256"
"""Of a folder, what tells its data from others."""


def check_mark(folder: Path | None, found: str, refusal: str, name: str = DATA) -> None:
    """Refuse a folder that holds the state of something else; None is no folder.

    Args:
        folder: Where state is kept, or may be.
        found: Tells this from others.
        refusal: What to say.
        name: Of the file that marks it.

    Raises:
        SettingsError: It is marked as that of another.
    """
    path = None if folder is None else folder / name
    if path is not None and path.exists() and path.read_text(encoding="utf-8") != found:
        raise SettingsError(refusal)


def claim(folder: Path | None, found: str, refusal: str, name: str = DATA) -> None:
    """Refuse a folder that is marked as that of something else, or mark it: `check_mark`, then `mark`."""
    check_mark(folder, found, refusal, name)
    mark(folder, found, name)


def mark(folder: Path | None, found: str, name: str = DATA) -> None:
    """Mark a folder, which is about to hold state, so that `check_mark` knows it; None is no folder."""
    if folder is not None and not (folder / name).exists():
        write_whole(folder / name, found)
