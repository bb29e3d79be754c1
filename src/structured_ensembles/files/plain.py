"""JSON that nobody vouches for, checked by type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from structured_ensembles.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Sequence


def require(holds: bool, message: str) -> None:
    """Refuse what does not hold."""
    if not holds:
        raise ArtefactError(message)


def parsed(text: str | bytes) -> Any:  # noqa: ANN401
    """Strict JSON: no key twice, no NaN or infinity."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"its header is not the JSON of an artefact ({error}).") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def object_of(what: str, value: object, keys: Sequence[str]) -> dict[str, Any]:
    """A JSON object with exactly these keys."""
    if not isinstance(value, dict) or set(value) != set(keys):
        raise ArtefactError(f"{what} must be a JSON object with exactly the keys {', '.join(keys)}.")
    return value
