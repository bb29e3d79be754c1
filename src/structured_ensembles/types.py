"""The vocabulary: named types, choices and protocols that every stage speaks.

Shapes: M members, B batch, C channels of one group, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from structured_ensembles.options.choices import Choice, Placement

Architecture: TypeAlias = Callable[[], nn.Module]
"""A factory of freshly initialised networks: a module class without arguments, or any function."""

Scores: TypeAlias = Mapping[str, Tensor]
"""By group name, the scale factors of all members: (M, C)."""

Importance: TypeAlias = Mapping[str, Tensor]
"""By group name, |dL/dscore| of all members: (M, C)."""

Channels: TypeAlias = Mapping[str, Tensor]
"""By group name, the sorted indices of the channels that ONE member keeps: int64."""


class Side(Choice):
    """Which dimension of a module a cut shrinks."""

    OUT = "out"
    IN = "in"


@dataclass(frozen=True)
class Cut:
    """One dimension of one module that shrinks when channels of a group are removed.

    Channel c of the group occupies the positions ``offset + c * repeat ... offset + (c + 1) * repeat - 1``.

    Attributes:
        module: Dotted name of the module, as in ``named_modules()``, or of a bare parameter.
        side: The output or the input dimension.
        offset: First position of the group in that dimension (above 0 after a concatenation).
        repeat: Positions per channel (above 1 after a flatten, and for whole groups of a grouped convolution).
    """

    module: str
    side: Side
    offset: int = 0
    repeat: int = 1


@dataclass(frozen=True)
class Group:
    """Channels that live or die together.

    Attributes:
        name: Dotted name of the first layer that produces the channels.
        channels: C, how many there are.
        cuts: Every dimension that shrinks with them.
        private: Whether a single layer produces them and its readers read nothing else there.
        scaled: Where scale factors apply, for each placement; ``side`` is always OUT.
    """

    name: str
    channels: int
    cuts: tuple[Cut, ...]
    private: bool
    scaled: Mapping[Placement, tuple[Cut, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Topology:
    """What of a network can be scaled and cut.

    Attributes:
        groups: In the order in which the network runs them.
        classes: K, the width of the output.
        notices: Why channels were left out, one sentence each.
    """

    groups: tuple[Group, ...]
    classes: int
    notices: tuple[str, ...] = ()

    @property
    def widths(self) -> dict[str, int]:
        """C by group name."""
        return {group.name: group.channels for group in self.groups}

    @property
    def whole(self) -> Channels:
        """The channels of a member that keeps everything."""
        return {group.name: torch.arange(group.channels) for group in self.groups}


@dataclass(frozen=True)
class Prediction:
    """What an ensemble says about B inputs.

    Attributes:
        probabilities: (B, K).
        predictive_entropy: (B,), entropy of ``probabilities``, in nats.
        expected_entropy: (B,), mean entropy of the members' own probabilities, in nats.
        mutual_information: (B,), what the members disagree about: predictive minus expected entropy, in nats.
        votes: (M, B), each member's most probable class, int64.
    """

    probabilities: Tensor
    predictive_entropy: Tensor
    expected_entropy: Tensor
    mutual_information: Tensor
    votes: Tensor

    @property
    def classes(self) -> Tensor:
        """(B,), the most probable class, int64."""
        return self.probabilities.argmax(dim=-1)
