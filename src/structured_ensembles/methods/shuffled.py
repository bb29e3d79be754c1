"""Control arm: the structured members' own widths, but random channels. Tells widths from channels."""

from __future__ import annotations

import torch
from torch import nn

from structured_ensembles.methods.fitting import Fold
from structured_ensembles.methods.random_channels import CHANCE
from structured_ensembles.methods.structured import StructuredEnsemble
from structured_ensembles.seeding import derived_seed
from structured_ensembles.types import Channels, Topology


class ShuffledEnsemble(StructuredEnsemble):
    """A structured ensemble whose members keep as many channels of each group as were found, drawn at random."""

    method = "shuffled"

    def channels(self, base: nn.Module, found: Topology, fold: Fold) -> list[Channels]:
        """Search, then draw other channels."""
        generator = torch.Generator().manual_seed(derived_seed(fold.seed, CHANCE))

        def drawn(name: str, count: int) -> torch.Tensor:
            return torch.randperm(found.widths[name], generator=generator)[:count].sort().values

        searched = super().channels(base, found, fold)
        return [{name: drawn(name, len(kept)) for name, kept in member.items()} for member in searched]
