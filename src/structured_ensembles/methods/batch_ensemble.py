"""BatchEnsemble: one network whose layers have a pair of vectors for each member.

Wen, Tran and Ba 2020, https://arxiv.org/abs/2002.06715, equation 1.
"""

from __future__ import annotations

from structured_ensembles.implicit import Form
from structured_ensembles.methods.fitting import Built, Fittable, Fold


class BatchEnsemble(Fittable):
    """Shared weights, times a rank-one matrix of each member's own; every member sees every example.

    Args:
        base: What makes the network.
        members: M.
        settings: How it is trained; None takes the default preset for the network's family.
    """

    method = "batch_ensemble"

    def build(self, fold: Fold) -> Built:
        """Train it."""
        return self.train_shared(Form("rank_one"), fold)
