"""The diversity terms: what one may look at, how one gets a name, and how several make one penalty.

A term is a function of an `Observation` that returns a scalar to be minimised: lower means more diverse. A new one is
a small file::

    from structured_ensembles.diversity import Observation, register

    @register("variance")
    def variance(observation: Observation) -> Tensor:
        spread = [scores.var(dim=0).mean() for scores in observation.scores.values()]
        return 1 / (1 + torch.stack(spread).mean())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.catalogue import TERMS
from structured_ensembles.options.search import check_weights
from structured_ensembles.types import Scores


@dataclass(frozen=True)
class Observation:
    """What a diversity term sees of M members at one step of the search.

    Attributes:
        scores: By group, (M, C), differentiable; at least one group.
        distributions: By group, what the scores are drawn from, of batch shape (M, C); None where nothing is drawn.
        logits: (M, B, K), the outputs of all members on the same inputs; None unless a term asked for them.

    Raises:
        SettingsError: No group, a group that is not (M, C), or another M in one place than in another.
    """

    scores: Scores
    distributions: Mapping[str, Distribution] | None = None
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.scores:
            raise SettingsError("nothing to compare: the observation has no group of scores, and needs at least one")
        shapes = {name: tuple(scores.shape) for name, scores in self.scores.items()}
        if any(len(shape) != 2 or 0 in shape for shape in shapes.values()) or len({m for m, _ in shapes.values()}) > 1:
            raise SettingsError(f"scores have shapes {shapes}, expected (M, C) with the same M in every group")
        if self.logits is not None and (self.logits.dim() != 3 or self.logits.shape[0] != self.members):
            shape = tuple(self.logits.shape)
            raise SettingsError(
                f"logits have shape {shape}, expected ({self.members}, B, K): every member on every input"
            )

    @property
    def members(self) -> int:
        """M."""
        return next(iter(self.scores.values())).shape[0]


Penalty = Callable[[Observation], Tensor]
"""What a term computes: a scalar, lower where the members are more diverse."""


@dataclass(frozen=True)
class Term:
    """A registered diversity term: called with an `Observation`, it returns the scalar to be minimised.

    Attributes:
        name: What settings call it.
        measure: The function behind it.
        needs_logits: Whether it looks at the members' outputs, which costs M forward passes instead of one.
    """

    name: str
    measure: Penalty
    needs_logits: bool = False

    def __call__(self, observation: Observation) -> Tensor:
        """The penalty, a scalar; 0 for a single member, which nothing can differ from.

        Raises:
            SettingsError: The observation lacks what the term needs, or the term's function returns no scalar.
        """
        if observation.members == 1:
            return _nothing(observation)
        if self.needs_logits and observation.logits is None:
            raise SettingsError(f"diversity term {self.name!r} compares predictions: the observation has no logits")
        value = self.measure(observation)
        if value.dim():
            raise SettingsError(f"diversity term {self.name!r} returned shape {tuple(value.shape)}, expected a scalar")
        return value


def diversity_term(name: str, *, needs_logits: bool = False) -> Callable[[Penalty], Term]:
    """Decorate a function of an `Observation` to make it a term.

    Args:
        name: What messages call it.
        needs_logits: Whether the function reads ``observation.logits``.
    """
    return lambda measure: Term(name, measure, needs_logits)


def register(name: str, *, needs_logits: bool = False) -> Callable[[Penalty], Term]:
    """Decorate a function of an `Observation` to make it the diversity term that settings call ``name``.

    Args:
        name: What settings will call it.
        needs_logits: Whether the function reads ``observation.logits``.

    Raises:
        SettingsError: The name is taken.
    """

    def add(measure: Penalty) -> Term:
        term = diversity_term(name, needs_logits=needs_logits)(measure)
        TERMS.add(name, term)
        return term

    return add


def needs_logits(weights: Mapping[str, float]) -> bool:
    """Whether any term that counts looks at the members' outputs.

    Raises:
        SettingsError: See `check_weights`.
    """
    return any(chosen.needs_logits for chosen, _ in _counting(weights))


def penalty(weights: Mapping[str, float], observation: Observation) -> Tensor:
    """The weighted sum of the terms; one whose weight is zero is not computed.

    Args:
        weights: By term, its weight lambda in the loss of the search.
        observation: What the terms see.

    Returns:
        A scalar, differentiable; 0 without any weight, and with a single member.

    Raises:
        SettingsError: See `check_weights`, or a term lacks what it needs.
    """
    total = _nothing(observation)
    for chosen, weight in _counting(weights):
        total = total + weight * chosen(observation)
    return total


def _counting(weights: Mapping[str, float]) -> list[tuple[Term, float]]:
    check_weights(weights)
    return [(TERMS[name], weight) for name, weight in weights.items() if weight > 0]


def _nothing(observation: Observation) -> Tensor:
    """Zero, on the graph of the scores, so that a caller may always differentiate."""
    return torch.stack([scores.sum() for scores in observation.scores.values()]).sum() * 0
