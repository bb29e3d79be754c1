"""MIMO: one network with M inputs and M outputs.

Havasi et al. 2021, https://arxiv.org/abs/2010.06610.
"""

from __future__ import annotations

from structured_ensembles.implicit import Form
from structured_ensembles.methods.fitting import Built, Fittable, Fold


class MIMO(Fittable):
    """One network that learns to answer M independent inputs at once, and answers one input M times.

    Args:
        base: An architecture by name, which can be built with more inputs and outputs.
        members: M.
        settings: How it is trained; None takes the default preset for the network's family.
    """

    method = "mimo"

    def build(self, fold: Fold) -> Built:
        """Train it."""
        return self.train_shared(Form("mimo"), fold)
