"""MC Dropout: one network, answers with different activations dropped.

Gal and Ghahramani 2016, https://arxiv.org/abs/1506.02142.
"""

from __future__ import annotations

from structured_ensembles.implicit import Form
from structured_ensembles.implicit.dropout import output_layer
from structured_ensembles.methods.fitting import Built, Fittable, Fold
from structured_ensembles.networks import Given
from structured_ensembles.options.ensemble import Settings
from structured_ensembles.options.plans import Scalar


class MCDropout(Fittable):
    """One network with dropout after every convolution and hidden Linear layer, in training and in prediction.

    Args:
        base: What makes the network.
        members: M, how many samples a prediction takes; what they drop is drawn once, by the seed of the fit.
        probability: Of dropping (published: 0.25).
        settings: How it is trained; None takes the default preset for the network's family.
    """

    method = "mc_dropout"

    def __init__(
        self, base: Given, members: int = 4, *, probability: float = 0.25, settings: Settings | None = None
    ) -> None:
        super().__init__(base, members, settings)
        self.probability = probability

    def build(self, fold: Fold) -> Built:
        """Train it."""
        output = output_layer(self.draw(fold.seed), fold.train.example)
        arguments: dict[str, Scalar] = {"output": output, "probability": self.probability, "seed": fold.seed}
        return self.train_shared(Form("dropout", arguments), fold)
