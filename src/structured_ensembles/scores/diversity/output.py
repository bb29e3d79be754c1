"""Agreement of the members' predictions.

Sees: what an ensemble is after: members that answer differently, whichever channels they use to do so.

Does not see: the channels: members may answer differently over the very same ones. It rewards disagreement on every
input, right answers included, so a large weight costs accuracy. And it needs all members on the same inputs: M
forward passes instead of one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from structured_ensembles.errors import SettingsError
from structured_ensembles.scores.diversity.pairs import pairs
from structured_ensembles.scores.diversity.terms import Observation, diversity_term


@diversity_term("output", needs_logits=True)
def output(observation: Observation) -> Tensor:
    """1 - JS / ln 2, in [0, 1]: JS the Jensen-Shannon divergence, mean over pairs and inputs; 1 the same, 0 disjoint.

    Raises:
        SettingsError: The observation has no logits.
    """
    if observation.logits is None:
        raise SettingsError("diversity term 'output' compares predictions: the observation has no logits")
    logs = torch.log_softmax(observation.logits, dim=-1)
    first, second = pairs(observation.members)
    mixture = torch.logaddexp(logs[first], logs[second]) - math.log(2)
    divergence = _entropy(mixture) - _entropy(logs)[first] / 2 - _entropy(logs)[second] / 2
    return 1 - divergence.mean() / math.log(2)


def _entropy(logs: Tensor) -> Tensor:
    return -(logs.exp() * logs).sum(dim=-1)
