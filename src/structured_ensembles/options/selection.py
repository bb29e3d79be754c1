"""How channels are selected."""

from __future__ import annotations

from dataclasses import dataclass

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import Rule, check_numbers


@dataclass(frozen=True)
class SelectionSettings:
    """How channels are selected.

    Attributes:
        rule: In what order they are kept.
        keep: The share of channels kept, in (0, 1]; ignored where there is a budget.
        normalise: Whether importances are first divided by their mean within the member's group.
        round_to: Every width is rounded up to a multiple of this, as far as the group has channels.

    Raises:
        SettingsError: If a value is outside its limits, or no rule has this name.
    """

    rule: Rule = Rule.PER_COST
    keep: float = 0.5
    normalise: bool = False
    round_to: int = 1

    def __post_init__(self) -> None:
        check_numbers(self)
        object.__setattr__(self, "rule", Rule.named(self.rule))
        if not 0 < self.keep <= 1:
            raise SettingsError(f"keep {self.keep} is outside (0, 1]: 0.5 keeps half of the channels")
        if not self.round_to >= 1:
            raise SettingsError(f"round_to {self.round_to} must be at least 1")
