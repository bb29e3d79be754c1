"""The folder of a run: made before the long work, so that it is known to be writable; never written over."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from structured_ensembles.cli.printing import resuming
from structured_ensembles.errors import SettingsError, StructensError
from structured_ensembles.experiments.run import CONFIGURATION, STATE
from structured_ensembles.files.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


CONFIGURATIONS = {"fit": CONFIGURATION, "compare": "comparison.yaml", "continual": "continual.yaml"}
"""By verb, the file in its folder that says what it runs."""


def check_new(folder: Path, verb: str = "fit") -> None:
    """Refuse a folder that exists.

    Args:
        folder: Of a new run.
        verb: Of the command, with which a run would go on.

    Raises:
        SettingsError: It does.
    """
    if folder.exists() or folder.is_symlink():
        raise SettingsError(
            f"the output folder {folder} exists: choose another with --out, or go on with the run in it: "
            f"{resuming(folder, verb)}"
        )


@contextmanager
def reserved(folder: Path, configuration: str, verb: str = "fit") -> Iterator[None]:
    """Make the folder with its configuration; if the run is refused before anything is found, it is gone again.

    Raises:
        SettingsError: The folder exists or cannot be made.
    """
    check_new(folder, verb)
    made = _missing(folder)
    try:
        folder.mkdir(parents=True)
        write_whole(folder / CONFIGURATIONS[verb], configuration)
    except OSError as error:
        _remove(folder, made, CONFIGURATIONS[verb])
        raise SettingsError(f"cannot write in {folder} ({error.strerror}): choose another --out") from error
    try:
        yield
    except StructensError:
        if not (folder / STATE).exists():
            _remove(folder, made, CONFIGURATIONS[verb])
        raise


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Make a folder that is written when all is known; if nothing was, whatever stopped the work, it is gone again.

    Raises:
        SettingsError: The folder exists or cannot be made.
    """
    made = _missing(folder)
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise SettingsError(f"the output folder {folder} exists: choose another with --out") from error
    except OSError as error:
        raise SettingsError(f"cannot write in {folder} ({error.strerror}): choose another --out") from error
    try:
        yield
    finally:
        _remove_empty(made)


def _missing(folder: Path) -> list[Path]:
    """The folders to make, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove(folder: Path, made: list[Path], name: str) -> None:
    """Undo `reserved`, parents included where nobody else has put anything into them."""
    configuration = folder / name
    if folder.is_dir() and set(folder.iterdir()) <= {configuration}:  # else there is something to go on with
        configuration.unlink(missing_ok=True)
    _remove_empty(made)


def _remove_empty(made: list[Path]) -> None:
    for path in made:
        if not path.is_dir() or any(path.iterdir()):
            return
        path.rmdir()


def fresh(wanted: Path) -> Path:
    """The folder, or the first of folder-2, folder-3, ... that does not exist."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder
