"""The published term: maximum mean discrepancy with a kernel that averages before the exponential.

Sees: that the members' scores are distributed differently within a group (mean, spread).

Does not see: WHICH channels differ. Members that hold the same values in another order, two disjoint masks even, are
at distance zero. Wide groups hardly count: D is some 1e-2 at 16 channels and 2e-7 at 4096. Nor is D a true MMD: it
can be negative, and 1/(D + eps) is unbounded near zero. It is kept as it was published, for comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from structured_ensembles.scores.diversity.pairs import blocks
from structured_ensembles.scores.diversity.terms import Observation, diversity_term
from structured_ensembles.types import Scores

EPSILON = 1e-12

Kernel: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From two stacks (groups, pairs, C) and bandwidths (groups,) to k - 1, (groups, pairs).

It is k - 1 because the ones of k(a, a) + k(b, b) - 2 k(a, b) cancel: what is left of k at 4096 channels is below the
rounding error of a float32 near one.
"""

Bandwidth: TypeAlias = Callable[[Tensor], Tensor]
"""From the scores of groups of one width, (groups, M, C), to the kernel's gamma for each group, (groups,)."""


@diversity_term("mmd")
def mmd(observation: Observation) -> Tensor:
    """R = 1 / (D + eps), D the sum over groups and pairs of MMD2 with the published kernel."""
    return inverse(squared_mmd(observation.scores, published_kernel, width))


def inverse(distances: Tensor) -> Tensor:
    """The published penalty 1 / (D + eps) of distances of any shape, D their sum."""
    return 1 / (distances.sum() + EPSILON)


def squared_mmd(scores: Scores, kernel: Kernel, bandwidth: Bandwidth) -> Tensor:
    """MMD2 = k(a, a) + k(b, b) - 2 k(a, b) of every pair of members: (groups, pairs), in no order of groups."""
    return torch.cat([_block_mmd(block, kernel, bandwidth) for block in blocks(scores)])


def _block_mmd(block: Tensor, kernel: Kernel, bandwidth: Bandwidth) -> Tensor:
    # One call for k(a, a) and k(a, b): computed alike, they cancel exactly where members are identical.
    first, second = torch.triu_indices(block.shape[1], block.shape[1])
    values = kernel(block[:, first], block[:, second], bandwidth(block))
    own, cross = values[:, first == second], first < second
    return own[:, first[cross]] + own[:, second[cross]] - 2 * values[:, cross]


def published_kernel(a: Tensor, b: Tensor, gamma: Tensor) -> Tensor:
    """k(a, b) - 1, with k(a, b) = mean_i exp(-mean_j (a_i - b_j)^2 / gamma), in O(C).

    The inner mean is (a_i - mean(b))^2 + var(b), where nothing cancels.
    """
    variance, mean = torch.var_mean(b, dim=-1, correction=0, keepdim=True)
    return torch.expm1(-((a - mean) ** 2 + variance) / gamma[:, None, None]).mean(dim=-1)


def width(block: Tensor) -> Tensor:
    """The published bandwidth: gamma = C."""
    return block.new_full(block.shape[:1], block.shape[-1])
