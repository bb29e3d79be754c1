"""One network, trained as members are: what every ensemble has to beat."""

from __future__ import annotations

from structured_ensembles.methods.fitting import Built, Fittable, Fold
from structured_ensembles.networks import Given
from structured_ensembles.options.ensemble import Settings


class SingleNetwork(Fittable):
    """The base network, whole.

    Args:
        base: What makes the network.
        settings: How it is trained; None takes the default preset for its family.
    """

    method = "single"

    def __init__(self, base: Given, *, settings: Settings | None = None) -> None:
        super().__init__(base, 1, settings)

    def build(self, fold: Fold) -> Built:
        """Train it."""
        return Built([self.train_member(self.draw(fold.seed), fold, 0)])
