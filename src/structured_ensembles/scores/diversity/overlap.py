"""Soft intersection over union of the channels that the members would keep.

A channel is softly kept where the magnitude of its score is above the median of the member's own scores in the group:
half of the channels, whatever the scores' scale.

Sees: WHICH channels two members would both keep, on the same scale for every width: every group counts the same.

Does not see: the sign of a score; a share of channels other than half; how members divide a group when all of their
scores are the same size (all are then half kept, and everything overlaps). Magnitudes stand for the importances that
ranking computes later. With more than two members not all pairs can be disjoint at half the channels, so 0 is out of
reach. Its gradient vanishes where two members are identical, so members need different starts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from structured_ensembles.scores.diversity.pairs import over_pairs
from structured_ensembles.scores.diversity.terms import Observation, diversity_term

TEMPERATURE = 0.25
"""How soft the threshold is, as a share of the mean magnitude: scores from N(0, 1) are mostly decided, some open."""

EPSILON = 1e-8
"""The least scale: where all of a member's scores are zero, every channel is half kept."""


@diversity_term("overlap")
def overlap(observation: Observation) -> Tensor:
    """The mean over groups and pairs of sum(min) / sum(max) of the soft masks, in [0, 1]: 1 the same, 0 disjoint."""
    masks = {name: soft_mask(scores) for name, scores in observation.scores.items()}
    return over_pairs(masks, _intersection_over_union).mean()


def soft_mask(scores: Tensor) -> Tensor:
    """How far each channel is kept, in [0, 1], 1/2 at the member's median magnitude.

    Args:
        scores: (..., C).

    Returns:
        (..., C), the same for any multiple of the scores.
    """
    magnitude = scores.abs()
    centre = magnitude.median(dim=-1, keepdim=True).values
    # Scaled by the mean and not by the median: that goes to zero as half of the channels are turned off.
    scale = magnitude.mean(dim=-1, keepdim=True).clamp_min(EPSILON)
    return torch.sigmoid((magnitude - centre) / (TEMPERATURE * scale))


def _intersection_over_union(a: Tensor, b: Tensor) -> Tensor:
    return torch.minimum(a, b).sum(dim=-1) / torch.maximum(a, b).sum(dim=-1)
