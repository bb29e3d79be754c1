"""Maximum mean discrepancy with the textbook Gaussian kernel (Gretton et al., JMLR 13, 2012, equation 5).

`mmd_textbook` takes the published bandwidth gamma = C, `mmd_median` the median heuristic.

Sees: any difference between the distributions of two members' scores within a group, and with the median heuristic
on the same scale for every width.

Does not see: which channels differ, as `mmd`. It costs O(C^2) time, and gamma = C still leaves wide groups out.
1/(D + eps) is unbounded where the members are alike, and flat where they are identical.
"""

from __future__ import annotations

import torch
from torch import Tensor

from structured_ensembles.scores.diversity.mmd import Bandwidth, inverse, squared_mmd, width
from structured_ensembles.scores.diversity.terms import Observation, diversity_term

CHUNK = 2**20
"""How many values of the kernel are held at once (4 MiB in float32), or one row of each pair where that is more."""

MEDIAN_SAMPLE = 256
"""How many of the pooled scores the median heuristic compares: all of them, or as many evenly spaced quantiles."""


@diversity_term("mmd_textbook")
def mmd_textbook(observation: Observation) -> Tensor:
    """R = 1 / (D + eps), D the sum over groups and pairs of MMD2 with the textbook kernel, gamma = C."""
    return _textbook(observation, width)


@diversity_term("mmd_median")
def mmd_median(observation: Observation) -> Tensor:
    """R = 1 / (D + eps), D the sum over groups and pairs of MMD2, textbook kernel, median heuristic."""
    return _textbook(observation, median)


def _textbook(observation: Observation, bandwidth: Bandwidth) -> Tensor:
    # A true MMD2 is never negative: rounding that makes it so would turn the penalty into a reward.
    return inverse(squared_mmd(observation.scores, textbook_kernel, bandwidth).clamp_min(0))


def textbook_kernel(a: Tensor, b: Tensor, gamma: Tensor) -> Tensor:
    """k(a, b) - 1, with k(a, b) = mean_ij exp(-(a_i - b_j)^2 / gamma), in memory that is linear in C.

    Differentiable once: the slopes are summed in the same pass, as keeping C^2 values for a backward pass would take
    gigabytes. `CHUNK` values are held at once.
    """
    value, slope_a, slope_b = _value_and_slopes(a.detach(), b.detach(), gamma)
    # Both differences are zero: they leave the value as it is and give it its slopes.
    return value + (slope_a * (a - a.detach()) + slope_b * (b - b.detach())).sum(dim=-1)


def _value_and_slopes(a: Tensor, b: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The kernel minus 1, (groups, pairs), and its derivatives by a and b, (groups, pairs, C)."""
    channels, scale = a.shape[-1], -1 / gamma[:, None, None]
    total, slope_a, slope_b = torch.zeros_like(a[..., 0]), torch.empty_like(a), torch.zeros_like(b)
    rows = max(1, CHUNK // b.numel())
    # Two buffers for all chunks: fresh ones of this size leave the allocator with a gigabyte of holes.
    buffers = a.new_empty(2, min(rows, channels), *b.shape)
    for start in range(0, channels, rows):
        part = a[..., start : start + rows].movedim(-1, 0).unsqueeze(-1)
        difference, kernel = buffers[:, : len(part)]
        torch.sub(part, b, out=difference)
        torch.mul(difference, difference, out=kernel).mul_(scale).expm1_()
        total += kernel.sum(dim=(0, -1))
        kernel.add_(1).mul_(difference)
        slope_a[..., start : start + rows] = kernel.sum(dim=-1).movedim(0, -1)
        slope_b -= kernel.sum(dim=0)
    factor = 2 * scale / channels**2
    return total / channels**2, slope_a * factor, slope_b * factor


@torch.no_grad()
def median(block: Tensor) -> Tensor:
    """The median heuristic: the median squared distance between the scores that a group's members hold.

    A constant to the gradient. Beyond `MEDIAN_SAMPLE` scores, that many evenly spaced quantiles stand for them, which
    needs no random numbers.
    """
    pooled = block.flatten(1).sort(dim=1).values
    size = min(pooled.shape[1], MEDIAN_SAMPLE)
    ranks = torch.arange(size) * pooled.shape[1] // size + pooled.shape[1] // (2 * size)
    first, second = torch.triu_indices(size, size, offset=1)
    sample = pooled[:, ranks]
    distances = (sample[:, first] - sample[:, second]) ** 2
    return distances.median(dim=1).values.clamp_min(torch.finfo(block.dtype).eps)
