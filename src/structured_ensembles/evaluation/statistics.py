"""What several seeds of one thing came to: means, spreads and intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Generic, TypeVar

CONFIDENCE = 0.95
"""Of an `interval`."""

K = TypeVar("K")
V = TypeVar("V")


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


@dataclass(frozen=True)
class Summary(Generic[K]):
    """An arm over its seeds.

    Attributes:
        arm: What the runs have in common that differ only in their seed.
        seeds: How many were run, the failed ones included.
        failed: How many of them failed.
        values: By name, what the others came to; a value that none has is absent.
    """

    arm: K
    seeds: int
    failed: int
    values: Mapping[str, Spread]


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """By first part, all second parts, both in the order in which they come."""
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def spread(numbers: Sequence[float]) -> Spread:
    """Of one number or more."""
    return Spread(fmean(numbers), stdev(numbers) if len(numbers) > 1 else None, len(numbers))


def summary(arm: K, runs: Sequence[Mapping[str, float] | None]) -> Summary[K]:
    """Of what each run of an arm came to, by name; None for one that failed."""
    finished = [run for run in runs if run is not None]
    names = dict.fromkeys(name for run in finished for name in run)
    values = {name: spread([run[name] for run in finished if name in run]) for name in names}
    return Summary(arm, len(runs), len(runs) - len(finished), values)


def interval(numbers: Sequence[float]) -> tuple[float, float] | None:
    """Where their mean may lie, by Student's t; None where nothing is known of how they spread.

    That is so of a single number, and of numbers that are all the same but not zero.
    """
    if len(numbers) == 1 or (numbers[0] and stdev(numbers) <= 1e-9 * abs(numbers[0])):
        return None
    from scipy.stats import t

    mean, count = fmean(numbers), len(numbers)
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * stdev(numbers) / math.sqrt(count)
    return mean - half, mean + half
