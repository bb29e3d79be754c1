"""How the scores are trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.catalogue import TERMS
from structured_ensembles.options.choices import Parametrisation, Placement
from structured_ensembles.options.described import check, option


@dataclass(frozen=True)
class SearchSettings:
    """How the scores are trained; each field says what it does.

    Raises:
        SettingsError: Naming every value outside its limits.
    """

    parametrisation: Parametrisation = option(
        Parametrisation.FREE, "What is trained: scale factors, or distributions that they are drawn from."
    )
    samples: int = option(1, "Draws averaged in each pass, for distributions.", limit="[1, inf)")
    placement: Placement = option(Placement.AFTER_NORM, "Where channels are scaled.")
    epochs: int = option(
        10, "How often every image is seen, at most.", limit="[0, inf)", key="search_epochs", called="search epochs"
    )
    max_steps: int | None = option(None, "Stop after so many batches.", limit="[0, inf)", key="search_steps")
    batch_size: int = option(
        128, "Shared by the members.", limit="[2, inf)", key="search_batch_size", called="search batch_size"
    )
    learning_rate: float = option(
        1e-3, "Of Adam.", limit="(0, inf)", key="search_learning_rate", called="search learning_rate"
    )
    diversity: Mapping[str, float] = option(
        dict,
        f"The weight (lambda) of a term that makes members differ: {', '.join(TERMS)}. Repeatable; overlap=0 is none.",
    )

    def __post_init__(self) -> None:
        check(self)
        check_weights(self.diversity)


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights of diversity terms that the search would refuse, before any work is done.

    Raises:
        SettingsError: An unknown term, or a weight that is negative, infinite or not a number.
    """
    if not isinstance(weights, Mapping):
        raise SettingsError(f"diversity {weights!r} must be weights by term, such as {{'overlap': 0.01}}")
    for name, weight in weights.items():
        TERMS.check(name)
        if not (math.isfinite(weight) and weight >= 0):
            raise SettingsError(
                f"weight of diversity term {name!r} is {weight}, expected a finite number of at least 0"
            )
