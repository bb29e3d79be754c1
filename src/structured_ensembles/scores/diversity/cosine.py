"""Cosine between the members' score vectors.

Sees: WHICH channels two members weigh alike, on the same scale for every width: every group counts the same, however
wide it is.

Does not see: the length of a score vector; nor that scores of opposite sign use the same channel: s and -s are the
most diverse pair to it, though ranking by magnitude would keep the same channels of both (`overlap` sees that). Its
gradient vanishes where two members are exactly parallel, so members need different starts.
"""

from __future__ import annotations

from torch import Tensor

from structured_ensembles.scores.diversity.pairs import over_pairs
from structured_ensembles.scores.diversity.terms import Observation, diversity_term

EPSILON = 1e-8
"""Added to a mean square, so that a vector of zeros has a gradient, and cosine 0 with any other."""


@diversity_term("cosine")
def cosine(observation: Observation) -> Tensor:
    """The mean over groups and pairs of (1 + cos) / 2, in [0, 1]: 1 parallel, 1/2 orthogonal, 0 opposite."""
    return (1 + over_pairs(observation.scores, _cosine).mean()) / 2


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (_unit(a) * _unit(b)).mean(dim=-1)


def _unit(scores: Tensor) -> Tensor:
    # A mean and not a sum: the epsilon then weighs the same for every width.
    return scores * ((scores**2).mean(dim=-1, keepdim=True) + EPSILON).rsqrt()
