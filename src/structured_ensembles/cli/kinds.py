"""What a value of the command line or of a configuration file may be, and how it is read: the same for both."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import click

from structured_ensembles.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    Kind = click.ParamType[Any]
else:
    Kind = click.ParamType  # older versions of click know no type arguments

Context = click.Context | None
Parameter = click.Parameter | None


class Text(Kind):
    """A text that is not empty."""

    name = "text"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> str:  # noqa: ANN401 (whatever YAML holds)
        """The text without the spaces around it."""
        if not isinstance(value, str) or not value.strip():
            self.fail(f"{value!r} is not a text.", param, ctx)
        return value.strip()


class Whole(Kind):
    """A whole number."""

    name = "integer"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> int:  # noqa: ANN401
        """An int, or its digits; 2.5 and true are neither."""
        try:
            return int(_text(value, (str, int)))
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not a whole number.", ctx, param) from error


class Number(Kind):
    """A finite number."""

    name = "number"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> float:  # noqa: ANN401
        """A float, from text too: YAML reads 1e-3, without a point, as text."""
        try:
            number = float(_text(value, (str, int, float)))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise click.BadParameter(f"{value!r} is not a finite number.", ctx, param)
        return number


def _text(value: Any, kinds: tuple[type, ...]) -> str:  # noqa: ANN401
    """A number as text; nothing for what is of another kind."""
    return str(value) if isinstance(value, kinds) and not isinstance(value, bool) else ""


class Switch(Kind):
    """Yes or no."""

    name = "boolean"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> bool:  # noqa: ANN401
        """A bool; on the command line click makes it of --name and --no-name."""
        if not isinstance(value, bool):
            self.fail(f"{value!r} is neither true nor false.", param, ctx)
        return value


class OneOf(Kind):
    """One of some names."""

    name = "choice"

    def __init__(self, *known: str) -> None:
        self.known = known

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 (click's signature)
        """The names, for the help."""
        return "|".join(self.known)

    def convert(self, value: Any, param: Parameter, ctx: Context) -> str:  # noqa: ANN401, ARG002
        """The name; a SettingsError that proposes the nearest one if there is none."""
        if value not in self.known:
            raise unknown(param.name.replace("_", "-") if param and param.name else "name", str(value), self.known)
        return str(value)


class OrNone(Kind):
    """Another kind, or none."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.name = f"{kind.name}|none"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:  # noqa: ANN401
        """The text `NONE`, which unlike None was written by someone, or what the other kind reads."""
        if value is None or value == NONE:
            return NONE
        return self.kind.convert(value, param, ctx)


NONE = "none"


class Several(Kind):
    """Several values, separated by commas; in YAML also a list."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.name = f"{kind.name},..."

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[Any, ...]:  # noqa: ANN401
        """The values."""
        parts: Sequence[Any] = value if isinstance(value, list | tuple) else str(value).split(",")
        return tuple(self.kind.convert(part.strip() if isinstance(part, str) else part, param, ctx) for part in parts)


class Seeds(Kind):
    """How many seeds, or which; in YAML also a list."""

    name = "number or list"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[int, ...]:  # noqa: ANN401
        """``5``: five of them; ``5-9``: from the first to the last; ``3,7``: these."""
        if isinstance(value, list | tuple):
            return tuple(Whole().convert(seed, param, ctx) for seed in value)
        text = str(value).replace(" ", "")
        found: tuple[int, ...] = ()
        if re.fullmatch(r"\d{1,6}", text):
            found = tuple(range(int(text)))
        elif limits := re.fullmatch(r"(\d{1,6})-(\d{1,6})", text):
            found = tuple(range(int(limits[1]), int(limits[2]) + 1))
        elif re.fullmatch(r"\d{1,6}(,\d{1,6})+", text):
            found = tuple(int(seed) for seed in text.split(","))
        if not found:
            raise click.BadParameter(
                f"{value!r} is not understood: write 5 (how many), 5-9 or 3,7 (which).", ctx, param
            )
        return found


class Pair(Kind):
    """``name=value``, given once or more; in YAML a mapping."""

    def __init__(self, value: Kind) -> None:
        self.value = value
        self.name = f"name={value.name}"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[str, Any]:  # noqa: ANN401
        """Name and value."""
        if isinstance(value, str) and "=" in value:
            value = tuple(value.split("=", 1))
        if not isinstance(value, tuple) or not isinstance(value[0], str) or not value[0].strip():
            self.fail(f"{value!r} is not of the form name=value.", param, ctx)
        return value[0].strip(), self.value.convert(value[1], param, ctx)


class Scalar(Kind):
    """A number, true, false or a text: what an architecture's arguments are."""

    name = "value"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:  # noqa: ANN401
        """On the command line everything is text: what looks like a number or a truth value is one."""
        if not isinstance(value, str | int | float | bool):
            self.fail(f"{value!r} is neither a number, a truth value nor a text.", param, ctx)
        try:
            found = json.loads(value.lower()) if isinstance(value, str) else value
        except ValueError:
            return value
        return found if isinstance(found, int | float) else value
