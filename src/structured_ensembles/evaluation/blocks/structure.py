"""How differently the members of an ensemble are built, and how differently they answer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from structured_ensembles.artefact.file import Record
from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.subject import Subject
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.types import Channels, Group


@dataclass(frozen=True)
class Layer:
    """What the members keep of one layer.

    Attributes:
        layer: Dotted name of the first layer that produces the channels.
        base: C, how many channels the whole network has there.
        widths: M numbers, how many channels each member keeps.
        overlap: M rows of M numbers, the channels that both members keep among those that either keeps: 1 if they are
            cut alike, 0 if they share nothing. Two random halves of many channels have a third.
    """

    layer: str
    base: int
    widths: tuple[int, ...]
    overlap: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Structure:
    """How alike members are.

    Attributes:
        agreement: M rows of M numbers, the share of examples for which both members vote for the same class.
        layers: In the order in which the network runs them; None if the members were not cut out of a network.
    """

    agreement: tuple[tuple[float, ...], ...]
    layers: tuple[Layer, ...] | None


def measured(subject: Subject) -> Structure:
    """Of its members, and their votes on the test images."""
    return structure(subject.ensemble, subject.answers.prediction.votes)


def structure(ensemble: Ensemble, votes: Tensor) -> Structure:
    """Compare all pairs of members.

    Args:
        ensemble: M members.
        votes: (M, N), the class that each of them votes for, int64.

    Raises:
        DataError: There are no votes, or not one row per member.
        SettingsError: The ensemble has not been fitted.
    """
    record = ensemble.record
    if votes.dim() != 2 or len(votes) != record.members or votes.numel() == 0:
        shape = tuple(votes.shape)
        raise DataError(f"votes of shape {shape}: pass ({record.members} members, examples), one example at least")
    return Structure(agreement(votes), layers(record) or None)


def layers(record: Record) -> tuple[Layer, ...]:
    """What members keep of each layer; empty if they were not cut out of a network."""
    return tuple(_layer(group, record.channels) for group in record.groups) if record.channels else ()


def agreement(votes: Tensor) -> tuple[tuple[float, ...], ...]:
    """The share of examples for which two members vote alike, for every pair.

    Args:
        votes: (M, N), int64.

    Returns:
        M rows of M numbers from 0 to 1.
    """
    # Member by member: all pairs at once are (M, M, N).
    return tuple(_row((votes == own).double().mean(dim=1)) for own in votes)


def _layer(group: Group, channels: tuple[Channels, ...]) -> Layer:
    """What members with these channels keep of a group; one that does not name it keeps it whole."""
    masks = torch.zeros(len(channels), group.channels, dtype=torch.float64)
    for mask, kept in zip(masks, channels, strict=True):
        mask[kept.get(group.name, slice(None))] = 1
    both, widths = masks @ masks.T, masks.sum(dim=1)
    either = widths[:, None] + widths - both
    overlap = tuple(_row(row) for row in both / either)
    return Layer(group.name, group.channels, tuple(int(width) for width in widths), overlap)


def _row(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def widths(record: Record) -> dict[str, dict[str, Any]]:
    """By layer, the channels of the whole network and how many of them each member keeps."""
    return {layer.layer: {"whole": layer.base, "members": list(layer.widths)} for layer in layers(record)}


def overlaps(record: Record) -> dict[str, float]:
    """By pair of members, counted from 1, the intersection over union of their channels, averaged over the layers."""
    found = layers(record)
    pairs = combinations(range(len(record.channels)), 2)
    return {f"{a + 1},{b + 1}": fmean([layer.overlap[a][b] for layer in found]) for a, b in pairs if found}


def mean_overlap(record: Record) -> float:
    """The mean of `overlaps`."""
    return fmean(list(overlaps(record).values()))


def by_chance(record: Record) -> float | None:
    """What `overlaps` would be on average if members of these widths kept channels drawn at random; None for one."""
    expected = [
        _expected(layer.widths[a], layer.widths[b], layer.base)
        for a, b in combinations(range(len(record.channels)), 2)
        for layer in layers(record)
    ]
    return fmean(expected) if expected else None


def _expected(one: int, other: int, channels: int) -> float:
    both = one * other / channels
    return both / (one + other - both)
