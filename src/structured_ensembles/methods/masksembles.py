"""Masksembles: one network, and fixed masks over its channels, one for each member.

Durasov et al. 2021, https://arxiv.org/abs/2012.08334.
"""

from __future__ import annotations

from structured_ensembles.implicit import Form
from structured_ensembles.implicit._layers import called_layers, first_called
from structured_ensembles.implicit.torch_uncertainty import MASKED
from structured_ensembles.methods.fitting import Built, Fittable, Fold
from structured_ensembles.networks import Given
from structured_ensembles.options.ensemble import Settings


class Masksembles(Fittable):
    """Shared weights under M masks; needs the extra ``compare``.

    Args:
        base: What makes the network.
        members: M.
        scale: How far the masks differ: in [1.1, 6], larger values overlap less.
        settings: How it is trained; None takes the default preset for the network's family.
    """

    method = "masksembles"

    def __init__(self, base: Given, members: int = 4, *, scale: float = 2.0, settings: Settings | None = None) -> None:
        super().__init__(base, members, settings)
        self.scale = scale

    def build(self, fold: Fold) -> Built:
        """Train it."""
        base = self.draw(fold.seed)
        first = first_called(base, fold.train.example, MASKED)
        usual = next(iter(called_layers(base, MASKED)), "")
        other = {} if first == usual else {"first": first}  # a file names it only where it is not the first defined
        return self.train_shared(Form("masked", {"scale": self.scale, **other}), fold)
