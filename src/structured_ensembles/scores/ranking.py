"""Rank: one importance per member, group and channel, from the gradients of the scores."""

from __future__ import annotations

from itertools import islice
from operator import length_hint
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import Placement, Reduce
from structured_ensembles.progress import track
from structured_ensembles.scores.scaling import frozen, scaled
from structured_ensembles.scores.search import forward_members
from structured_ensembles.seeding import deterministic, seeded
from structured_ensembles.types import Importance, Scores, Topology

MEDIAN_BATCHES = 256
"""Up to so many batches the median is exact; beyond, it is that of so many batches drawn at random."""


def rank(
    network: nn.Module,
    topology: Topology,
    batches: DataLoader[Any],
    scores: Scores,
    placement: Placement,
    reduce: Reduce = Reduce.MEAN,
    seed: int = 0,
    max_batches: int | None = None,
) -> Importance:
    """Pass the training set once and reduce |dL/dscore| over the batches; nothing is updated.

    L is the cross-entropy of the members' mean logits, every member sees every example, and normalisation uses batch
    statistics, as in the search. All M x L gradients come from one backward pass per batch, in constant memory.

    Args:
        network: The base, on the device where it runs; it comes out bit-identical.
        topology: Its groups.
        batches: Batches of the training set.
        scores: By group, the scale factors (M, C) that the search found.
        placement: Where they multiply, as in the search.
        reduce: How batches are reduced.
        seed: Of everything random in the passes.
        max_batches: Only so many batches are passed; None passes them all (published).

    Returns:
        By group, the importance (M, C), on the CPU.

    Raises:
        SettingsError: If an importance is infinite or NaN.
    """
    device = next(network.parameters()).device
    leaves = {name: value.detach().clone().to(device).requires_grad_() for name, value in scores.items()}
    reducer = _REDUCERS[reduce](seed)
    known = length_hint(batches)
    total = min(known, max_batches or known) or None
    with (
        torch.enable_grad(),
        deterministic(),
        seeded(seed),
        frozen(network),
        scaled(network, topology, placement) as scaler,
    ):
        for inputs, labels in track(islice(batches, max_batches), "Ranking channels", total):
            logits = forward_members(network, scaler, leaves, inputs.to(device)).mean(dim=0)
            loss = cross_entropy(logits, labels.to(device, torch.int64))
            # A layer that this pass skipped (stochastic depth) has gradient zero.
            gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
            reducer.add(torch.cat(gradients, dim=1).abs())
    parts = torch.split(_finite(reducer.result()), [leaf.shape[1] for leaf in leaves.values()], dim=1)
    return dict(zip(leaves, parts, strict=True))


def _finite(importance: Tensor) -> Tensor:
    importance = importance.cpu()
    if wrong := int((~importance.isfinite()).sum()):
        raise SettingsError(
            f"{wrong} of {importance.numel()} importances are infinite or NaN: the scores have grown too large, use a "
            "smaller search learning rate"
        )
    return importance


class _Mean:
    def __init__(self, _seed: int) -> None:
        self.count, self.mean = 0, torch.zeros(())

    def add(self, values: Tensor) -> None:
        self.count += 1
        self.mean = self.mean.to(values) + (values - self.mean.to(values)) / self.count

    def result(self) -> Tensor:
        return self.mean


class _Max:
    def __init__(self, _seed: int) -> None:
        self.largest = torch.zeros(())

    def add(self, values: Tensor) -> None:
        self.largest = torch.maximum(self.largest.to(values), values)

    def result(self) -> Tensor:
        return self.largest


class _Median:
    """The median of all batches, or of a uniform sample of them (reservoir sampling: Vitter 1985, algorithm R)."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.count = 0
        self.kept: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        self.count += 1
        if len(self.kept) < MEDIAN_BATCHES:
            self.kept.append(values)
            return
        place = int(torch.randint(self.count, (1,), generator=self.generator))
        if place < MEDIAN_BATCHES:
            self.kept[place] = values

    def result(self) -> Tensor:
        return torch.stack(self.kept).median(dim=0).values


_REDUCERS: dict[Reduce, type[_Mean | _Max | _Median]] = {Reduce.MEAN: _Mean, Reduce.MEDIAN: _Median, Reduce.MAX: _Max}
