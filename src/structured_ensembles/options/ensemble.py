"""Everything that decides how an ensemble is made."""

from __future__ import annotations

from dataclasses import dataclass

from structured_ensembles.options import common
from structured_ensembles.options.budget import Budget
from structured_ensembles.options.choices import Combine, Reduce, Scope
from structured_ensembles.options.described import check, option, part
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.selection import SelectionSettings
from structured_ensembles.options.training import TrainingSettings

SEARCH = "Search: which channels matter to which member"
SELECTION = "Selection: which channels each member keeps"
TRAINING = "Training of each member"


@dataclass(frozen=True)
class Settings:
    """Everything that decides how an ensemble is made, but for the network, the data and the seed.

    Each field says what it does.

    Raises:
        SettingsError: Naming every value outside its limits.
    """

    scope: Scope = option(
        Scope.COUPLED,
        "Which channels may be removed: those of single layers, or also those tied by additions.",
        section=SEARCH,
    )
    graph_seconds: float = common.graph_seconds(SEARCH)
    search: SearchSettings = part(SearchSettings, SEARCH)
    reduce: Reduce = common.reduce(SELECTION)
    rank_batches: int | None = common.rank_batches(SELECTION)
    selection: SelectionSettings = part(SelectionSettings, SELECTION)
    budget: Budget | None = option(
        None,
        "What all members together may cost: 1x (the bytes of one whole network), 0.5x params, 2MB, 280k params or "
        "50MFLOPs.",
        section="Ensemble",
    )
    shrink_rounds: int = option(
        0, "First narrow the whole network so often, by a search of its own.", limit="[0, inf)", section=SELECTION
    )
    shrink_keep: float = option(0.8, "The share of channels kept in each round.", limit="(0, 1]", section=SELECTION)
    # Slices of a fresh base, and not fresh narrow networks: their weights have the scale of a wide network's.
    re_init: bool = option(False, "Draw the weights of structured and shuffled afresh.", section=SELECTION)
    training: TrainingSettings = part(TrainingSettings, TRAINING)
    held_out: float = common.held_out(
        TRAINING, "The share of the training images that chooses the best epoch and the threshold for abstaining."
    )
    combine: Combine = option(
        Combine.PROBABILITIES, "What is averaged over the members to get one answer.", section="Ensemble"
    )

    def __post_init__(self) -> None:
        budget: object = self.budget
        if isinstance(budget, str):
            object.__setattr__(self, "budget", Budget.parse(budget))
        check(self)
