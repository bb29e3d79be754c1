"""How channels are selected."""

from __future__ import annotations

from dataclasses import dataclass

from structured_ensembles.options.choices import Rule
from structured_ensembles.options.described import check, option


@dataclass(frozen=True)
class SelectionSettings:
    """How channels are selected; each field says what it does.

    Raises:
        SettingsError: If a value is outside its limits, or no rule has this name.
    """

    rule: Rule = option(
        Rule.PER_COST,
        "Keep by importance per byte (per_cost) or importance (global), or a share of each layer: the same (local), or "
        "more of it where a byte does more operations (tapered).",
    )
    keep: float = option(
        0.5,
        "Instead of a budget: the share of channels that each member keeps, in (0, 1]; 0.5 as published.",
        limit="(0, 1]",
        rule="is outside (0, 1]: 0.5 keeps half of the channels",
        section="Ensemble",
        quiet=True,
    )
    normalise: bool = option(False, "Divide importances by their mean within the layer first.")
    round_to: int = option(1, "Round widths up to a multiple, as far as the layer has channels.", limit="[1, inf)")

    def __post_init__(self) -> None:
        check(self)
