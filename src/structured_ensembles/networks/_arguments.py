"""Checks of the numbers and names that architectures are built from; a saved file may hold anything."""

from __future__ import annotations

from typing import TypeVar

from structured_ensembles.errors import NetworkError, SettingsError, unknown
from structured_ensembles.options.choices import Choice

C = TypeVar("C", bound=Choice)


def integer(name: str, value: object, low: int, high: int) -> int:
    """Return ``value`` if it is an int within [low, high].

    Raises:
        SettingsError: It is something else, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingsError(f"{name} must be a whole number from {low} to {high}, not {_short(value)}.")
    return value


def number(name: str, value: object, low: float, high: float) -> float:
    """Return ``value`` as a float if it is a number within [low, high].

    Raises:
        SettingsError: It is something else, NaN, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise SettingsError(f"{name} must be a number from {low:g} to {high:g}, not {_short(value)}.")
    return float(value)


def choice(name: str, kind: type[C], value: object) -> C:
    """Return the member of ``kind`` that ``value`` names.

    Raises:
        SettingsError: There is none.
    """
    known = [str(member) for member in kind]
    text = str(value) if isinstance(value, str) else _short(value)
    if text not in known:
        raise unknown(name, text, known)
    return kind(text)


def smallest_image(name: str, input_shape: tuple[int, int, int], pixels: int) -> None:
    """Refuse images with a side shorter than ``pixels``.

    Raises:
        NetworkError: A side is shorter.
    """
    _, height, width = input_shape
    if min(height, width) < pixels:
        raise NetworkError(
            f"{name} takes images of at least {pixels}x{pixels} pixels, and these are {height}x{width}: "
            "enlarge them, or use 'mlp'."
        )


def _short(value: object) -> str:
    """``value`` as a message can show it: numbers of a saved file may have thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
