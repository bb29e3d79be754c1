"""The errors that users see: each names the value, the limit and the remedy."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class StructensError(Exception):
    """Anything that a user can mend; the command prints it in one line and exits with status 2."""


class DataError(StructensError):
    """The data cannot be read, or cannot be learned from as they are."""


class NetworkError(StructensError):
    """The network cannot be made into an ensemble; the message names the layer and the reason."""


class SettingsError(StructensError):
    """A setting is outside its limits, or names something that does not exist."""


class BudgetError(SettingsError):
    """No ensemble of this network is small enough; the message names the smallest possible one."""


class ArtefactError(StructensError):
    """A file is not an artefact of this library, is damaged, or belongs to another architecture."""


def unknown(kind: str, name: str, known: Iterable[str]) -> SettingsError:
    """The error for a name that is not among ``known``, with the nearest one proposed.

    Args:
        kind: What the name should have been, for example ``"architecture"``.
        name: What the user wrote.
        known: The names that exist.
    """
    names = sorted(known)
    spelled = {one.lower(): one for one in names}
    near = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.5)
    hint = f"did you mean {spelled[near[0]]!r}? " if near else ""
    return SettingsError(f"unknown {kind} {name!r}: {hint}Known: {', '.join(names)}.")


def first_line(error: BaseException) -> str:
    """What a message can show of another library's error."""
    return (str(error).splitlines() or [type(error).__name__])[0]
