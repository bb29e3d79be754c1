"""Deep Ensemble: M whole networks, each drawn and trained on its own (Lakshminarayanan 2017, arXiv 1612.01474)."""

from __future__ import annotations

from structured_ensembles.methods.fitting import Built, Fittable, Fold


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
    draws_members = True

    def build(self, fold: Fold) -> Built:
        """Draw and train each copy; the first starts as the single network does."""
        return Built([self.train_member(self.draw(fold.seed, m), fold, m) for m in range(self.count)])
