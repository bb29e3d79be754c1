"""Packed-Ensembles: M narrow networks of uniform width, computed at once by grouped convolutions.

Laurent et al. 2023, https://arxiv.org/abs/2210.09184.
"""

from __future__ import annotations

from dataclasses import replace

from structured_ensembles.errors import SettingsError
from structured_ensembles.implicit import Form
from structured_ensembles.implicit.torch_uncertainty import check_independent
from structured_ensembles.methods.fitting import Built, Fittable, Fold
from structured_ensembles.networks import Given
from structured_ensembles.options.budget import Unit
from structured_ensembles.options.ensemble import Settings
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.scores.selection import impossible

_STEPS = 512
"""Widths are tried in so many steps for each width of the base."""


class PackedEnsemble(Fittable):
    """M networks of width alpha / M in one; needs the extra ``compare``.

    Args:
        base: What makes the network.
        members: M.
        alpha: The width of all members together, in that of the base; None takes the largest that the budget allows.
        settings: How it is trained; None takes the default preset for the network's family.
    """

    method = "packed"
    budgeted = True

    def __init__(
        self, base: Given, members: int = 4, *, alpha: float | None = None, settings: Settings | None = None
    ) -> None:
        super().__init__(base, members, settings)
        self.alpha = alpha

    def build(self, fold: Fold) -> Built:
        """Choose the width and train it."""
        alpha = self.alpha if self.alpha is not None else self._widest(fold)
        form = Form("packed", {"alpha": alpha})
        check_independent(self.draw(fold.seed, form=form), fold.train.example)
        return self.train_shared(form, fold)

    def _widest(self, fold: Fold) -> float:
        """The largest alpha within the budget, by bisection: the cost grows with it."""
        if self.settings.budget is None:
            raise SettingsError("packed has no single channels to keep a share of: give a budget, or alpha")
        unit = self.settings.budget.unit
        limit = self.settings.budget.limit(self._cost(fold, unit, None))
        low, high = 1, 2 * _STEPS * self.count
        if (smallest := self._cost(fold, unit, low)) > limit:
            raise impossible(limit, smallest, self.count, unit)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._cost(fold, unit, middle) <= limit else (low, middle - 1)
        return low / _STEPS

    def _cost(self, fold: Fold, unit: Unit, steps: int | None) -> int:
        """Of this width, or of one plain network."""
        form = None if steps is None else Form("packed", {"alpha": steps / _STEPS})
        record = self._recorded(fold, Built([], form))
        record = replace(record, method="single", members=1) if form is None else record
        return Ensemble([self.draw(fold.seed, form=form)], record).size().in_unit(unit)
