"""Everything that decides how an ensemble is made."""

from __future__ import annotations

from dataclasses import dataclass, field

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.budget import Budget
from structured_ensembles.options.choices import (
    Combine,
    Reduce,
    Scope,
    check_numbers,
)
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.selection import SelectionSettings
from structured_ensembles.options.training import TrainingSettings


@dataclass(frozen=True)
class Settings:
    """Everything that decides how an ensemble is made, but for the network, the data and the seed.

    Attributes:
        scope: Which channels are scaled.
        graph_seconds: How long the dependency graph may take.
        search: How the scores are trained.
        reduce: How the gradients of the batches become importances.
        rank_batches: How many batches the ranking passes at most; None passes the whole training set.
        selection: In what order channels are kept, and how many where there is no budget.
        budget: What the whole ensemble may cost; None keeps ``selection.keep`` of the channels.
        shrink_rounds: How often the base is first narrowed, by a search of its own with one member.
        shrink_keep: The share of channels kept in each of those rounds, in (0, 1].
        re_init: Whether each member is sliced from a fresh base instead of the one that was searched: its weights have
            the scale of a wide network's, as slices do.
        training: How members are trained.
        held_out: The share of the training data that chooses the best epoch, in (0, 1).
        combine: How members' outputs become one prediction.
    """

    scope: Scope = Scope.COUPLED
    graph_seconds: float = 60.0
    search: SearchSettings = field(default_factory=SearchSettings)
    reduce: Reduce = Reduce.MEAN
    rank_batches: int | None = None
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    budget: Budget | None = None
    shrink_rounds: int = 0
    shrink_keep: float = 0.8
    re_init: bool = False
    training: TrainingSettings = field(default_factory=TrainingSettings)
    held_out: float = 0.1
    combine: Combine = Combine.PROBABILITIES

    def __post_init__(self) -> None:
        check_numbers(self)
        object.__setattr__(self, "scope", Scope.named(self.scope))
        object.__setattr__(self, "reduce", Reduce.named(self.reduce))
        object.__setattr__(self, "combine", Combine.named(self.combine))
        budget: object = self.budget
        if isinstance(budget, str):
            object.__setattr__(self, "budget", Budget.parse(budget))
        for name, kind in _KINDS.items():
            if not isinstance(value := getattr(self, name), kind):
                raise SettingsError(f"{name} must be {kind.__name__}(...), not {value!r}")
        limits = [
            (
                self.rank_batches is not None and not self.rank_batches >= 1,
                f"rank_batches {self.rank_batches} must be at least 1, or none",
            ),
            (not self.graph_seconds > 0, f"graph_seconds {self.graph_seconds} must be above 0"),
            (not self.shrink_rounds >= 0, f"shrink_rounds {self.shrink_rounds} must be at least 0"),
            (not 0 < self.shrink_keep <= 1, f"shrink_keep {self.shrink_keep} is outside (0, 1]"),
            (not 0 < self.held_out < 1, f"held_out {self.held_out} is outside (0, 1): 0.1 holds out a tenth"),
        ]
        if problems := [message for wrong, message in limits if wrong]:
            raise SettingsError("; ".join(problems))


_KINDS = {"search": SearchSettings, "selection": SelectionSettings, "training": TrainingSettings}
"""Parts of the settings that are settings themselves."""
