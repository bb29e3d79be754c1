"""Extract: real, smaller networks out of the base.

In evaluation mode a member computes what the base computes with the removed channels at zero. The base is untrained
and the search leaves its buffers alone, so that a member's normalisation layers start fresh.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from structured_ensembles.channels import surgery
from structured_ensembles.networks import modules
from structured_ensembles.types import Channels, Group


def extract(base: nn.Module, groups: Sequence[Group], channels: Channels) -> nn.Module:
    """The member that keeps these channels, with weights sliced from the base and memory of its own.

    Args:
        base: The uncut network; it is left as it is.
        groups: Groups of its topology.
        channels: By group, the kept channels; groups that it does not name keep everything.
    """
    return modules.copied(surgery.cut(base, groups, channels), {})


def compose(outer: Channels, inner: Channels) -> dict[str, Tensor]:
    """Channels of the first network, given those kept of a network that was cut from it.

    Args:
        outer: What the cut network kept of the first one.
        inner: What is kept of the cut network.
    """
    return {name: outer[name][kept] for name, kept in inner.items()}
