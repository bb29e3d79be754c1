"""Control arm: channels kept by the norm of their untrained weights. What the cheapest criterion finds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds
from structured_ensembles.channels.extraction import extract
from structured_ensembles.methods.fitting import Fold
from structured_ensembles.methods.subnetworks import SubNetworks
from structured_ensembles.types import Channels, Group, Side, Topology


class MagnitudeEnsemble(SubNetworks):
    """M sub-networks that keep the channels with the largest weights, the same share of every group.

    From one base all members would keep the same channels, so each is cut out of a network of its own. Shares are
    uniform because norms of layers with other numbers of inputs do not compare.
    """

    method = "magnitude"
    draws_members = True

    def channels(self, base: nn.Module, found: Topology, fold: Fold) -> list[Channels]:
        """Channels in falling order of their norm."""
        own = [self.draw(fold.seed, member) for member in range(self.count)]
        norms = {group.name: torch.stack([_norms(one, group) for one in own]) for group in found.groups}
        return self.uniform(norms, base, found, fold)

    def start(self, base: nn.Module, found: Topology, kept: Channels, fold: Fold, member: int) -> nn.Module:  # noqa: ARG002
        """Cut out of the member's own network."""
        return extract(self.draw(fold.seed, member), found.groups, kept)


@torch.no_grad()
def _norms(network: nn.Module, group: Group) -> Tensor:
    """(C,), the Euclidean norm of all weights that make each channel."""
    total = torch.zeros(group.channels)
    for cut in group.cuts:
        layer = network.get_submodule(cut.module)
        if cut.side is Side.OUT and kinds.is_layer(layer):
            weight = layer.get_parameter("weight")[cut.offset : cut.offset + group.channels * cut.repeat]
            total += weight.square().reshape(group.channels, -1).sum(1)
    return total.sqrt()
