"""Deep Ensemble: M whole networks, each drawn and trained on its own (Lakshminarayanan 2017, arXiv 1612.01474)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from structured_ensembles.errors import SettingsError
from structured_ensembles.fitting import Built, Fittable, Fold

if TYPE_CHECKING:
    from structured_ensembles.fitting import Base
    from structured_ensembles.presets import Settings


class DeepEnsemble(Fittable):
    """M independent copies of the base network: the most dependable ensemble, at M times the memory.

    Args:
        base: A spec, a module class or another factory; one module cannot be drawn M times.
        members: M, at least 1.
        settings: How they are trained; None takes the default preset for the network's family.

    Raises:
        SettingsError: The base is a module.
    """

    method = "deep"

    def __init__(self, base: Base, members: int = 4, *, settings: Settings | None = None) -> None:
        if isinstance(base, nn.Module):
            raise SettingsError(
                f"a deep ensemble draws each member afresh: give the class {type(base).__name__} or a function that "
                "makes the network, not one network"
            )
        super().__init__(base, members, settings)

    def build(self, fold: Fold) -> Built:
        """Draw and train each copy; the first starts as the single network does."""
        return Built([self.train_member(self.draw(fold.seed, m), fold, m) for m in range(self.count)])
