"""Control arm: independent networks of uniform width, at the same cost as an ensemble with learned widths.

What a search for sub-networks must beat, and the question whether it is only their initialisation that helps.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from structured_ensembles.channels import kinds
from structured_ensembles.channels.extraction import extract
from structured_ensembles.methods.fitting import Fold
from structured_ensembles.methods.subnetworks import SubNetworks
from structured_ensembles.types import Channels, Side, Topology


class SlicedNarrowEnsemble(SubNetworks):
    """M networks of uniform width, each sliced from a wide network of its own: initialised as sub-networks are."""

    method = "narrow_sliced"
    draws_members = True

    def channels(self, base: nn.Module, found: Topology, fold: Fold) -> list[Channels]:
        """The first channels of every group: before training one is as good as another."""
        first = {name: -torch.arange(width).repeat(self.count, 1) for name, width in found.widths.items()}
        return self.uniform(first, base, found, fold)

    def start(self, base: nn.Module, found: Topology, kept: Channels, fold: Fold, member: int) -> nn.Module:  # noqa: ARG002
        """Cut out of the member's own network."""
        return extract(self.draw(fold.seed, member), found.groups, kept)


class NarrowEnsemble(SlicedNarrowEnsemble):
    """M networks of uniform width, each initialised as a network of that width is."""

    method = "narrow"

    def start(self, base: nn.Module, found: Topology, kept: Channels, fold: Fold, member: int) -> nn.Module:
        """Drawn at its own width."""
        narrow = super().start(base, found, kept, fold, member)
        _rescale(narrow, base)
        return narrow


@torch.no_grad()
def _rescale(narrow: nn.Module, wide: nn.Module) -> None:
    """Turn slices of a wide network's initial weights into a narrow one's.

    Weights are drawn with a standard deviation that falls with the root of the inputs (He, LeCun, PyTorch's own for
    weights and biases): a slice has that of the wide layer, and times the root of the ratio that of the narrow one.
    Where it falls otherwise, with the outputs for one, the result is what `torch_uncertainty.packed` starts from, too.
    """
    for name, layer in narrow.named_modules():
        if kinds.is_layer(layer):
            before, after = (kinds.width(one, Side.IN) for one in (wide.get_submodule(name), layer))
            groups = [kinds.convolution_groups(one) for one in (wide.get_submodule(name), layer)]
            factor = math.sqrt((before // groups[0]) / (after // groups[1]))
            for parameter in layer.parameters(recurse=False):
                parameter.mul_(factor)
