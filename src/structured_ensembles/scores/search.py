"""Search: the scores of all members, trained end to end on a frozen network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from structured_ensembles.data.batches import set_epoch
from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.networks.modules import in_mode
from structured_ensembles.options.choices import Placement
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.progress import bar
from structured_ensembles.scores import diversity
from structured_ensembles.scores.scaling import ScaleFactors, Scaler, frozen, scaled
from structured_ensembles.seeding import derived_seed, deterministic, seeded
from structured_ensembles.types import Scores, Topology


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        scores: By group, the expected scale factors (M, C).
        losses: The cross-entropy of each batch.
    """

    scores: Scores
    losses: tuple[float, ...]


def assign(batch: int, members: int) -> Tensor:
    """(B,), the member of each example: example i of B goes to member floor(i M / B)."""
    return torch.arange(batch) * members // batch


def search(
    network: nn.Module, topology: Topology, batches: DataLoader[Any], members: int, settings: SearchSettings, seed: int
) -> Found:
    """Train the scores of M members over one frozen network, all members in one forward pass.

    The network comes out bit-identical, batch statistics included.

    Args:
        network: The base, on the device where the search runs.
        topology: Its groups.
        batches: Shuffled batches of `batches.loader`.
        members: M, at least 1.
        settings: How to train.
        seed: Of the start values and of everything random in the passes.

    Raises:
        SettingsError: If there are no members, or the loss becomes infinite or NaN.
    """
    if members < 1:
        raise SettingsError(f"members {members} must be at least 1")
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(derived_seed(seed, 0))
    factors = ScaleFactors(topology.widths, members, settings.parametrisation, settings.samples, generator).to(device)
    optimiser = torch.optim.Adam(factors.parameters(), lr=settings.learning_rate)
    losses: list[float] = []
    steps = _steps(batches, settings)
    with (
        torch.enable_grad(),
        deterministic(),
        seeded(derived_seed(seed, 1)),
        frozen(network),
        scaled(network, topology, settings.placement) as scaler,
        bar(f"Searching {members} sub-network{'s' * (members > 1)}", steps) as progress,
    ):
        step = _Step(network, scaler, factors, settings.diversity)
        for inputs, labels in _cycle(batches, steps):
            fit, penalty = step.loss(inputs.to(device), labels.to(device, torch.int64))
            optimiser.zero_grad()
            (fit + penalty).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(_finite(fit.item(), penalty.item(), settings))
            progress.advance()
            progress.note(f"loss {losses[-1]:.3f}")
    return Found(factors.mean(), tuple(losses))


@dataclass(frozen=True)
class _Step:
    network: nn.Module
    scaler: Scaler
    factors: ScaleFactors
    weights: Mapping[str, float]

    def loss(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The cross-entropy of a batch divided among the members, and the diversity penalty."""
        scores = self.factors.sample()
        member = assign(len(inputs), _members(scores)).to(inputs.device)
        every = None
        if diversity.needs_logits(self.weights):
            every = forward_members(self.network, self.scaler, scores, inputs)
            logits = every[member, torch.arange(len(inputs), device=inputs.device)]
        else:
            self.scaler.use(scores, member)
            logits = self.network(inputs)
        observed = diversity.Observation(scores, self.factors.distributions(), every)
        return cross_entropy(logits, labels), diversity.penalty(self.weights, observed)


def _members(scores: Scores) -> int:
    return len(next(iter(scores.values())))


def forward_members(network: nn.Module, scaler: Scaler, scores: Scores, inputs: Tensor) -> Tensor:
    """(M, B, K): the logits of every member on every example of a batch, in one pass."""
    members = _members(scores)
    scaler.use(scores, torch.arange(members, device=inputs.device).repeat_interleave(len(inputs)))
    logits: Tensor = network(inputs.repeat(members, *[1] * (inputs.dim() - 1)))
    return logits.view(members, len(inputs), -1)


def check_rows(network: nn.Module, topology: Topology, placement: Placement, example: Tensor) -> None:
    """Refuse a network in which a batch that several members share is not what each computes alone.

    `scaled` tells whose row is whose by its place in the batch: a network that joins or turns batches deceives it.

    Args:
        network: Left as it is.
        topology: Its groups; at least one.
        placement: Where channels are scaled.
        example: Inputs (B, ...), on the network's device.

    Raises:
        NetworkError: The answers differ.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = {name: 0.5 + torch.rand(2, width, generator=generator) for name, width in topology.widths.items()}
    both = {name: value.to(example.device) for name, value in drawn.items()}
    with torch.no_grad(), in_mode(network, training=False), scaled(network, topology, placement) as scaler:
        joint = forward_members(network, scaler, both, example)
        one_by_one = [{name: value[m : m + 1] for name, value in both.items()} for m in range(2)]
        apart = torch.cat([forward_members(network, scaler, one, example) for one in one_by_one])
    if not torch.allclose(joint, apart, rtol=1e-2, atol=1e-2 * float(apart.abs().max()), equal_nan=True):
        raise NetworkError(
            "the network's examples cannot be told apart: a batch does not give what its parts give alone. Keep the "
            "batch in the first dimension, and do not join several copies of it there"
        )


def _steps(batches: DataLoader[Any], settings: SearchSettings) -> int:
    steps = settings.epochs * len(batches)
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def _cycle(batches: DataLoader[Any], steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch, start in enumerate(range(0, steps, max(1, len(batches)))):
        set_epoch(batches, epoch)
        yield from islice(batches, steps - start)


def _finite(fit: float, penalty: float, settings: SearchSettings) -> float:
    if not math.isfinite(fit + penalty):
        raise SettingsError(
            f"the search's loss became {fit} and its diversity penalty {penalty}: use a search learning rate below "
            f"{settings.learning_rate:g}, for example {settings.learning_rate / 10:g}, or another diversity term. "
            "If that does not help, the data hold infinite or NaN values."
        )
    return fit
