"""JSON that nobody vouches for, checked by type."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

from structured_ensembles.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import DataclassInstance

LARGEST = 2**31 - 1
"""Of any width, offset or number of members."""
_LONGEST_TEXT = 1000


def require(holds: bool, message: str) -> None:
    """Refuse what does not hold."""
    if not holds:
        raise ArtefactError(message)


# --- text -----------------------------------------------------------------------------------------------------------


def compact(value: object) -> str:
    """As strict JSON without a space."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def parsed(content: str | bytes) -> Any:  # noqa: ANN401
    """Strict JSON: no key twice, no NaN or infinity."""
    try:
        return json.loads(content, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"its header is not the JSON of an artefact ({error}).") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


# --- types ----------------------------------------------------------------------------------------------------------


def is_a(value: object, kind: Any) -> bool:  # noqa: ANN401 (a type, or what typing makes of types)
    """Whether a plain value is of a type, as JSON tells them apart: true is no number, and 1 is a ``float`` too.

    Args:
        value: Whatever JSON gives.
        kind: One of ``str``, ``bool``, ``int``, ``float`` (a finite number), or lists, dicts or unions of them.
    """
    parts = get_args(kind)
    if isinstance(kind, UnionType):
        return any(is_a(value, one) for one in parts)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(is_a(one, parts[0]) for one in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(is_a(k, parts[0]) and is_a(v, parts[1]) for k, v in value.items())
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        # an integer may be too large to become a float at all, so the limit is compared, not converted
        return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
    return isinstance(value, kind)


def object_of(what: str, value: object, keys: Sequence[str]) -> dict[str, Any]:
    """A JSON object with exactly these keys."""
    if not isinstance(value, dict) or set(value) != set(keys):
        raise ArtefactError(f"{what} must be a JSON object with exactly the keys {', '.join(keys)}.")
    return value


def fields_of(what: str, value: object, kind: type[DataclassInstance]) -> dict[str, Any]:
    """A JSON object with exactly the fields of a dataclass."""
    return object_of(what, value, [field.name for field in fields(kind)])


def items(what: str, value: object, count: int | None = None) -> list[Any]:
    """A list; of so many."""
    if not isinstance(value, list) or count not in (None, len(value)):
        raise ArtefactError(f"{what} must be a list{'' if count is None else f' of {count}'}.")
    return value


def string(what: str, value: object) -> str:
    """Text of any length."""
    if not isinstance(value, str):
        raise ArtefactError(f"{what} must be a text, not a {type(value).__name__}.")
    return value


def text(what: str, value: object) -> str:
    """A string that can be shown."""
    found = string(what, value)
    require(len(found) <= _LONGEST_TEXT, f"{what} must have at most {_LONGEST_TEXT} characters, not {len(found)}.")
    return found


def one_of(what: str, value: object, known: Sequence[str]) -> str:
    """One of the texts that are known."""
    require(value in known, f"{what} must be one of {', '.join(known)}.")
    return string(what, value)


def integer(what: str, value: object, low: int = 1) -> int:
    """A whole number within [low, LARGEST]."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= LARGEST:
        raise ArtefactError(f"{what} must be a whole number from {low} to {LARGEST}.")
    return value
