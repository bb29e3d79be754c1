"""Kullback-Leibler divergence between the members' score distributions.

Sees: how differently two members draw the score of the SAME channel, so it tells channels apart; also differences
in spread, which no term that looks at drawn scores sees in one step.

Does not see: anything where scores are not drawn (parametrisation "free"), and not whether a channel is kept: 100
beside 101 with a narrow spread is far apart, yet both keep it. The divergence has no upper limit, so a few channels
with narrow, distant distributions can satisfy the term alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, kl_divergence

from structured_ensembles.errors import SettingsError
from structured_ensembles.scores.diversity.pairs import pairs
from structured_ensembles.scores.diversity.terms import Observation, diversity_term


@diversity_term("kl")
def kl(observation: Observation) -> Tensor:
    """1 / (1 + KL), in (0, 1]: KL the mean over pairs, groups and each group's channels, symmetrised, in nats.

    Raises:
        SettingsError: The scores have no distributions, or groups have different kinds of them.
    """
    if not observation.distributions:
        raise SettingsError(
            "diversity term 'kl' compares score distributions, and these scores have none: choose the parametrisation "
            "normal, laplace, beta, gamma or exponential, or another term"
        )
    widths = [distribution.batch_shape[1] for distribution in observation.distributions.values()]
    divergence = _symmetrised(observation.distributions, observation.members)
    by_group = torch.stack([part.mean() for part in torch.split(divergence, widths, dim=1)])
    return 1 / (1 + by_group.mean())


def _symmetrised(distributions: Mapping[str, Distribution], members: int) -> Tensor:
    """(pairs, channels of all groups): the mean of KL(p_i, p_j) and KL(p_j, p_i)."""
    first, second = pairs(members)
    p, q = _rows(distributions, first), _rows(distributions, second)
    try:
        return (kl_divergence(p, q) + kl_divergence(q, p)) / 2
    except NotImplementedError:
        # No closed form (Student's t, for one): compare the normal distributions with the same two moments.
        p, q = Normal(p.mean, p.stddev), Normal(q.mean, q.stddev)
        return (kl_divergence(p, q) + kl_divergence(q, p)) / 2


def _rows(distributions: Mapping[str, Distribution], members: Tensor) -> Distribution:
    """The distributions of the given members, the channels of all groups side by side."""
    kinds = {type(distribution).__name__ for distribution in distributions.values()}
    if len(kinds) > 1:
        found = ", ".join(sorted(kinds))
        raise SettingsError(f"diversity term 'kl' needs one kind of distribution in all groups, found {found}")
    some = next(iter(distributions.values()))
    build: Callable[..., Distribution] = type(some)
    parameters = {
        name: torch.cat([getattr(distribution, name)[members] for distribution in distributions.values()], dim=1)
        for name in some.arg_constraints
    }
    return build(**parameters, validate_args=False)
