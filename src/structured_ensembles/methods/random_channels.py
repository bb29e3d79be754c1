"""Control arm: random channels, uniform widths. What sub-networks of one base give without any search."""

from __future__ import annotations

import torch
from torch import nn

from structured_ensembles.methods.fitting import Fold
from structured_ensembles.methods.subnetworks import SubNetworks
from structured_ensembles.seeding import derived_seed
from structured_ensembles.types import Channels, Topology

CHANCE = 6
"""The part of a run that has this seed: drawing channels."""


class RandomEnsemble(SubNetworks):
    """M sub-networks of one base that keep random channels, the same share of every group."""

    method = "random"

    def channels(self, base: nn.Module, found: Topology, fold: Fold) -> list[Channels]:
        """Channels in random order."""
        generator = torch.Generator().manual_seed(derived_seed(fold.seed, CHANCE))
        chance = {name: torch.rand(self.count, width, generator=generator) for name, width in found.widths.items()}
        return self.uniform(chance, base, found, fold)
