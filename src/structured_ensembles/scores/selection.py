"""Select: which channels of each member survive.

Every rule gives each channel of a member a key in [0, 1], its place in the order in which channels are kept: the first
0, the last 1. What is kept is then always a prefix, so that the size grows with its length and a budget can be met by
bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from structured_ensembles.errors import BudgetError
from structured_ensembles.options.choices import Rule
from structured_ensembles.options.selection import SelectionSettings
from structured_ensembles.types import Channels, Importance, Topology

Keys = Mapping[str, Tensor]
"""By group, each member's place of each channel in the order of keeping: (M, C), in [0, 1]."""


def order(importance: Importance, settings: SelectionSettings, weights: Mapping[str, float]) -> Keys:
    """The order in which each member keeps its channels.

    Args:
        importance: By group, (M, C).
        settings: The rule, and whether importances are normalised.
        weights: By group, for PER_COST what removing one channel saves, for TAPERED the share kept beside that of other
            groups; other rules read none.
    """
    values = dict(importance)
    if settings.normalise:
        values = {name: value / value.mean(1, keepdim=True).clamp_min(1e-30) for name, value in values.items()}
    if settings.rule is Rule.LOCAL:
        return {name: _places(value) for name, value in values.items()}
    if settings.rule is Rule.TAPERED:  # the channel that fills a share of its group, for the weight of the group
        values = {name: weights[name] * value.shape[1] / (1 + _ranks(value)) for name, value in values.items()}
    if settings.rule is Rule.PER_COST:
        values = {name: value / weights[name] for name, value in values.items()}
    places = _places(torch.cat(list(values.values()), dim=1))
    widths = [value.shape[1] for value in values.values()]
    return dict(zip(values, torch.split(places, widths, dim=1), strict=True))


def _places(values: Tensor) -> Tensor:
    """(M, N), the place of each value in descending order, from 0 to 1; equal values keep their order."""
    return _ranks(values) / max(1, values.shape[1] - 1)


def _ranks(values: Tensor) -> Tensor:
    """(M, N), the place of each value in descending order, from 0 on, float64; equal values keep their order."""
    return values.argsort(dim=1, descending=True, stable=True).argsort(dim=1).double()


def keep_share(keys: Keys, keep: float, round_to: int = 1) -> list[Channels]:
    """The channels at or above the (1 - keep)-quantile of importance, at least one in every group, for each member.

    For distinct importances this is exactly the published comparison with the linearly interpolated quantile.
    """
    # The slack undoes rounding: a share may come as 1 - 0.9, which is below 0.1.
    return _keep(keys, [keep + 1e-9] * _members(keys), round_to)


def keep_within(keys: Keys, size: Callable[[list[Channels]], int], limit: int, round_to: int = 1) -> list[Channels]:
    """The most channels whose true size is within a limit, all members growing one place at a time, in turn.

    A place is one channel; under the LOCAL rule, where groups keep the same share, it may be one in each of them.

    Args:
        keys: The order of keeping.
        size: What the members that keep these channels cost together; it must grow with them.
        limit: The largest size allowed.
        round_to: Widths are rounded up to multiples of this.

    Raises:
        BudgetError: If even the fewest channels cost more; it names that size.
    """
    members = _members(keys)
    places = torch.cat(list(keys.values()), dim=1).tolist()
    pairs = sorted({(key, member) for member in range(members) for key in places[member]})

    def prefix(length: int) -> list[Channels]:
        thresholds = dict.fromkeys(range(members), -1.0)
        thresholds.update((member, key) for key, member in pairs[:length])
        return _keep(keys, list(thresholds.values()), round_to)

    smallest = size(prefix(0))
    if smallest > limit:
        raise impossible(limit, smallest, members)
    low, high = 0, len(pairs)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(prefix(middle)) <= limit else (low, middle - 1)
    return prefix(low)


def fewest(widths: Mapping[str, int], round_to: int = 1) -> dict[str, Tensor]:
    """As few channels as a member can keep: one per group, rounded up as far as the group has channels."""
    return {name: torch.arange(min(width, round_to)) for name, width in widths.items()}


def impossible(limit: int, smallest: int, members: int, unit: str = "") -> BudgetError:
    """The error for a budget below the smallest possible ensemble."""
    counted = f" {unit}" if unit else ""
    return BudgetError(
        f"a budget of {limit:,}{counted} is impossible for {members} member{'s' * (members > 1)} of this network: the "
        f"smallest possible ensemble costs {smallest:,}. Allow at least that, or take fewer members"
    )


def _keep(keys: Keys, thresholds: Sequence[float], round_to: int) -> list[Channels]:
    return [
        {name: _first(value[member], threshold, round_to) for name, value in keys.items()}
        for member, threshold in enumerate(thresholds)
    ]


def _first(keys: Tensor, threshold: float, round_to: int) -> Tensor:
    """The sorted indices of the channels with keys up to the threshold; rounding takes the next best ones."""
    count = max(1, int((keys <= threshold).sum()))
    rounded = min(len(keys), -(-count // round_to) * round_to)
    return keys.argsort(stable=True)[:rounded].sort().values


def _members(keys: Keys) -> int:
    return len(next(iter(keys.values())))


def savings(topology: Topology, size: Callable[[Channels], int]) -> dict[str, float]:
    """By group, what a network saves by losing one of the group's channels.

    Args:
        topology: The network's groups.
        size: What the network that keeps these channels costs.
    """
    full = size({})
    without_one = {group.name: {group.name: torch.arange(1, group.channels)} for group in topology.groups}
    return {name: float(full - size(channels)) for name, channels in without_one.items()}
