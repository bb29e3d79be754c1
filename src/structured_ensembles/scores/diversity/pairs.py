"""Members compared two by two, group by group, without a loop over pairs or channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from structured_ensembles.types import Scores


def pairs(members: int) -> tuple[Tensor, Tensor]:
    """The indices i < j of the M (M - 1) / 2 pairs of members, each (pairs,)."""
    first, second = torch.triu_indices(members, members, offset=1)
    return first, second


def blocks(scores: Scores) -> Iterator[Tensor]:
    """The groups stacked by width: (groups, M, C) for each of the few widths that a network has.

    Stacking by width needs no padding, and so no masks, and 50 groups of 4 widths cost 4 rounds of operations.
    """
    by_width: dict[int, list[Tensor]] = {}
    for group in scores.values():
        by_width.setdefault(group.shape[1], []).append(group)
    return (torch.stack(groups) for groups in by_width.values())


def over_pairs(scores: Scores, compare: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """What ``compare`` says of every pair of members in every group.

    Args:
        scores: By group, (M, C).
        compare: From two tensors (groups, pairs, C) to (groups, pairs).

    Returns:
        (groups, pairs), the groups in no particular order.
    """
    first, second = pairs(next(iter(scores.values())).shape[0])
    return torch.cat([compare(block[:, first], block[:, second]) for block in blocks(scores)])
