"""Snapshot ensembles: one training with a cyclic learning rate, each cycle of which gives a member.

Huang et al. 2017, https://arxiv.org/abs/1704.00109, equation 2.
"""

from __future__ import annotations

from dataclasses import replace

from structured_ensembles.errors import SettingsError
from structured_ensembles.methods.fitting import Built, Fittable, Fold
from structured_ensembles.networks import Given
from structured_ensembles.options.choices import Schedule
from structured_ensembles.options.ensemble import Settings
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.training.limits import limited
from structured_ensembles.training.loop import Trained


class SnapshotEnsemble(Fittable):
    """M snapshots of one network, each at the end of a cycle.

    In each cycle the learning rate falls along half a cosine from its highest value to 0. As for every method, the
    member is the epoch of its cycle that is best on the held-out examples; the next cycle starts from that member.

    Args:
        base: What makes the network.
        members: M, as many as there are cycles.
        cycle_epochs: Of each cycle (published: 50); None divides the epochs of one training among the cycles.
        settings: How it is trained; None takes the default preset for the network's family.
    """

    method = "snapshot"

    def __init__(
        self, base: Given, members: int = 4, *, cycle_epochs: int | None = None, settings: Settings | None = None
    ) -> None:
        super().__init__(base, members, settings)
        self.cycle_epochs = cycle_epochs
        if cycle_epochs is not None and not (hasattr(cycle_epochs, "__index__") and cycle_epochs >= 1):
            raise SettingsError(f"cycle_epochs {cycle_epochs!r} must be a whole number of at least 1, or none")

    def build(self, fold: Fold) -> Built:
        """Train cycle after cycle."""
        total = limited(self.settings.training, len(fold.train)).epochs
        if self.cycle_epochs is None and total < self.count:
            raise SettingsError(
                f"{total} epochs cannot be divided into {self.count} cycles: train for {self.count} or more"
            )
        network, trained = self.draw(fold.seed), list[Trained]()
        for member in range(self.count):
            epochs = self.cycle_epochs or total * (member + 1) // self.count - total * member // self.count
            trained.append(self.train_member(network, fold, member, self._cycle(epochs)))
            network = trained[-1].network
        return Built(trained)

    def _cycle(self, epochs: int) -> TrainingSettings:
        settings = self.settings.training
        return replace(settings, epochs=epochs, max_steps=None, patience=None, schedule=Schedule.COSINE)
