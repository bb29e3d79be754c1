"""The published kernel over the scores of the whole network at once.

Sees: that the members' scores are distributed differently over the network: one member may score a layer higher than
another does, which is how members come to differ in the widths of their layers.

Does not see: which channels differ, as `mmd`, nor that two members swap whole layers; and with gamma the channels of
the whole network its distances are smaller still.
"""

from __future__ import annotations

import torch
from torch import Tensor

from structured_ensembles.scores.diversity.mmd import inverse, published_kernel, squared_mmd, width
from structured_ensembles.scores.diversity.terms import Observation, diversity_term


@diversity_term("mmd_global")
def mmd_global(observation: Observation) -> Tensor:
    """R = 1 / (D + eps), D the sum over pairs of MMD2 of the concatenated groups."""
    everything = torch.cat(list(observation.scores.values()), dim=1)
    return inverse(squared_mmd({"": everything}, published_kernel, width))
