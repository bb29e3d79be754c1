"""Files of a user's own that register architectures and diversity terms: run once in every process."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path

from structured_ensembles.errors import SettingsError, StructensError, first_line

_loaded: list[Path] = []


def loaded() -> tuple[Path, ...]:
    """The files that this process has run, in their order: another process must run them too."""
    return tuple(_loaded)


def load(path: str | Path) -> None:
    """Run a Python file, unless this process has done so already.

    It runs with all rights of the user, as any Python program does: a file from elsewhere is to be read first.

    Raises:
        SettingsError: There is no such Python file, or it fails; the message says in which line.
    """
    file = Path(path).expanduser().resolve()
    if file in _loaded:
        return
    if not file.is_file() or file.suffix != ".py":
        raise SettingsError(f"the plugin {path} is no file, or its name does not end in .py")
    name = f"structens_plugin_{len(_loaded)}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SettingsError(f"the plugin {path} cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # classes of it are looked up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        what = (
            first_line(error) if isinstance(error, StructensError) else f"{type(error).__name__}: {first_line(error)}"
        )
        raise SettingsError(f"the plugin {path} fails{_place(error, file)} ({what})") from error
    _loaded.append(file)


def _place(error: Exception, file: Path) -> str:
    """In which line of the file."""
    if isinstance(error, SyntaxError):
        return f" in line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f" in line {lines[-1]}" if lines else ""
