"""What a whole ensemble may cost."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import Choice


class Unit(Choice):
    """In what a budget is counted."""

    BYTES = "bytes"
    """Of the artefact on disk."""
    PARAMETERS = "parameters"
    """Of all members together."""
    FLOPS = "flops"
    """To predict one image with all members, a multiply-add as two."""


_UNITS = {
    **dict.fromkeys(("b", "byte", "bytes"), Unit.BYTES),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), Unit.PARAMETERS),
    **dict.fromkeys(("flop", "flops"), Unit.FLOPS),
}


_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


_BUDGET = re.compile(r"(?P<number>\d{1,18}(\.\d{0,18})?|\.\d{1,18})\s*(?P<scale>[kmgx]?)\s*(?P<unit>[a-z]*)", re.ASCII)


@dataclass(frozen=True)
class Budget:
    """What the whole ensemble may cost.

    Attributes:
        amount: Above 0.
        unit: What is counted.
        relative: Whether the amount is a multiple of what the base network costs.
    """

    amount: float
    unit: Unit = Unit.BYTES
    relative: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", Unit.named(self.unit))
        # 1 and 1.0 are one budget, also where a fit is told from another by how it is written.
        object.__setattr__(self, "amount", float(self.amount))
        if not 0 < self.amount < float("inf"):
            raise SettingsError(f"a budget of {self.amount} must be above 0 and finite")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``1x`` (of the base network's bytes), ``0.5x params``, ``2 MB``, ``280k params``, ``50 MFLOPs``.

        Prefixes are decimal: a kB is 1,000 bytes.

        Raises:
            SettingsError: If it is none of those, or not above 0.
        """
        found = _BUDGET.fullmatch(text.strip().lower())
        number, scale, unit = found.group("number", "scale", "unit") if found else ("", "", "")
        relative = scale == "x"
        if relative and not unit:
            unit = "bytes"
        if unit not in _UNITS:
            raise SettingsError(
                f"budget {text!r} is not understood: write 1x (the bytes of one network), 0.5x params, 2MB, "
                "280k params or 50MFLOPs"
            )
        # Exact decimals: 2.01 * 10**6 is 2009999.9999999998 in floating point.
        amount = Fraction(number) * (1 if relative else _PREFIXES[scale])
        return cls(float(amount), _UNITS[unit], relative=relative)

    def __str__(self) -> str:
        """As it can be written, every digit of the amount."""
        amount = format(Decimal(repr(self.amount)).normalize(), "f")
        return f"{amount}{'x' if self.relative else ''} {self.unit}"

    def limit(self, base: int) -> int:
        """The largest whole number within the budget.

        Args:
            base: What the base network costs, in this budget's unit.
        """
        # The decimal that was written, not its nearest float: 0.29 of 100 is 29.
        amount = Fraction(str(self.amount))
        return int(amount * base) if self.relative else int(amount)
