"""How the scores are trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import Parametrisation, Placement, check_numbers
from structured_ensembles.scores import diversity


@dataclass(frozen=True)
class SearchSettings:
    """How the scores are trained.

    Attributes:
        parametrisation: What is trained.
        samples: Draws averaged in each pass, for a sampled parametrisation.
        placement: Where channels are multiplied.
        epochs: At most how many times every example is seen.
        max_steps: Stop after so many batches; None never does.
        batch_size: B; divided among the members.
        learning_rate: Of Adam.
        diversity: Weight (lambda) of each diversity term, by name.

    Raises:
        SettingsError: Naming every value outside its limits.
    """

    parametrisation: Parametrisation = Parametrisation.FREE
    samples: int = 1
    placement: Placement = Placement.AFTER_NORM
    epochs: int = 10
    max_steps: int | None = None
    batch_size: int = 128
    learning_rate: float = 1e-3
    diversity: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_numbers(self)
        object.__setattr__(self, "parametrisation", Parametrisation.named(self.parametrisation))
        object.__setattr__(self, "placement", Placement.named(self.placement))
        limits = [
            (not self.samples >= 1, f"samples {self.samples} must be at least 1"),
            (not self.epochs >= 0, f"search epochs {self.epochs} must be at least 0"),
            (self.max_steps is not None and not self.max_steps >= 0, f"max_steps {self.max_steps} must be at least 0"),
            (not self.batch_size >= 2, f"search batch_size {self.batch_size} must be at least 2"),
            (not 0 < self.learning_rate < math.inf, f"search learning_rate {self.learning_rate} must be above 0"),
        ]
        if problems := [message for wrong, message in limits if wrong]:
            raise SettingsError("; ".join(problems))
        diversity.check_weights(self.diversity)
