"""Settings that fits and streams have in common, under whatever title the help lists them."""

from __future__ import annotations

from structured_ensembles.options.choices import Reduce
from structured_ensembles.options.described import option


def reduce(section: str) -> Reduce:
    """How gradients become importances."""
    words = "How the gradients of many batches become one importance."
    return option(Reduce.MEAN, words, section=section)  # type: ignore[no-any-return]


def rank_batches(section: str) -> int | None:
    """How much the ranking looks at."""
    words = "Look at so many batches for it, at most."
    return option(None, words, limit="[1, inf)", section=section)  # type: ignore[no-any-return]


def graph_seconds(section: str) -> float:
    """How long the dependency graph may take."""
    words = "How long to look for the channels that can be removed."
    return option(60.0, words, limit="(0, inf]", section=section)  # type: ignore[no-any-return]


def held_out(section: str, words: str) -> float:
    """How much chooses the best epoch."""
    rule = "is outside (0, 1): 0.1 holds out a tenth"
    return option(0.1, words, limit="(0, 1)", rule=rule, section=section)  # type: ignore[no-any-return]
