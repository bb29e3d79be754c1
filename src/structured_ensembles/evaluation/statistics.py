"""Means and spreads over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


CONFIDENCE = 0.95
"""Of the intervals of `paired`."""


@dataclass(frozen=True)
class Spread:
    """One value over the seeds that have it.

    Attributes:
        mean: Over the seeds.
        deviation: The sample standard deviation (divided by count - 1); None for a single seed.
        count: How many seeds have it, 1 or more.
    """

    mean: float
    deviation: float | None
    count: int


def spread(numbers: Sequence[float]) -> Spread:
    """Of one number or more."""
    return Spread(fmean(numbers), stdev(numbers) if len(numbers) > 1 else None, len(numbers))
