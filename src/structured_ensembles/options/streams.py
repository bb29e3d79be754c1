"""How a stream of tasks is learned: the choices, and their two bundles, the default and what was published."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import (
    Capacity,
    Choice,
    CrossBlock,
    Exhausted,
    HeadKind,
    Norms,
    Optimiser,
    Placement,
    Preset,
    Reduce,
    Rule,
    Schedule,
    ThresholdOver,
    check_numbers,
)
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.training import TrainingSettings


@dataclass(frozen=True)
class ContinualSettings:
    """Everything that decides how a stream is learned, but for the backbone, the tasks and the seed.

    Attributes:
        training: How every task is trained, whatever the strategy.
        search: How the scale factors of a task's channels are trained.
        reduce: How the gradients of the batches become importances.
        rank_batches: How many batches the ranking passes at most; None passes them all.
        rule: Whether a share is of each group (local) or of all groups together (global).
        threshold_over: Which channels the share is of.
        capacity: How many free channels a task gets.
        keep: Of GEOMETRIC, the share of the channels, in (0, 1]. What was published as pruning p is keep 1 - p.
        tasks: Of EQUAL, how many tasks there will be.
        channels: Of FIXED, how many channels of every group.
        delta: Of AUTO, the held-out accuracy that a smaller share may cost, in [0, 1).
        cross_block: What becomes of weights from newer to older channels.
        norms: Whose the normalisation layers are.
        exhausted: What happens when nothing is free.
        head: What heads are made of.
        held_out: The share of a task's training data that chooses the best epoch, in (0, 1).
        graph_seconds: How long the dependency graph may take.

    Raises:
        SettingsError: Naming every value outside its limits.
    """

    training: TrainingSettings = field(default_factory=TrainingSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    reduce: Reduce = Reduce.MEAN
    rank_batches: int | None = None
    rule: Rule = Rule.LOCAL
    threshold_over: ThresholdOver = ThresholdOver.FREE
    capacity: Capacity = Capacity.GEOMETRIC
    keep: float = 0.5
    tasks: int = 5
    channels: int = 8
    delta: float = 0.01
    cross_block: CrossBlock = CrossBlock.ZERO
    norms: Norms = Norms.OWNER
    exhausted: Exhausted = Exhausted.REUSE
    head: HeadKind = HeadKind.LINEAR
    held_out: float = 0.1
    graph_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_numbers(self)
        for name, kind in _CHOICES.items():
            object.__setattr__(self, name, kind.named(getattr(self, name)))
        if problems := [message for wrong, message in _limits(self) if wrong]:
            raise SettingsError("; ".join(problems))


_CHOICES: dict[str, type[Choice]] = {
    "reduce": Reduce,
    "rule": Rule,
    "threshold_over": ThresholdOver,
    "capacity": Capacity,
    "cross_block": CrossBlock,
    "norms": Norms,
    "exhausted": Exhausted,
    "head": HeadKind,
}


def _limits(s: ContinualSettings) -> list[tuple[bool, str]]:
    """For each limit whether it is broken, and what to say then; written so that NaN breaks it."""
    return [
        (
            s.rank_batches is not None and not s.rank_batches >= 1,
            f"rank_batches {s.rank_batches} must be at least 1, or none",
        ),
        (
            s.rule in {Rule.PER_COST, Rule.TAPERED},
            f"rule {s.rule} is for ensembles: tasks take channels by rule local or global",
        ),
        (bool(s.search.diversity), "search.diversity needs several members, and a task has one: leave it empty"),
        (not 0 < s.keep <= 1, f"keep {s.keep} is outside (0, 1]: 0.5 gives a task half of the free channels"),
        (not s.tasks >= 1, f"tasks {s.tasks} must be at least 1"),
        (not s.channels >= 1, f"channels {s.channels} must be at least 1"),
        (not 0 <= s.delta < 1, f"delta {s.delta} is outside [0, 1): 0.01 allows one point of held-out accuracy"),
        (not 0 < s.held_out < 1, f"held_out {s.held_out} is outside (0, 1): 0.1 holds out a tenth"),
        (not 0 < s.graph_seconds < math.inf, f"graph_seconds {s.graph_seconds} must be above 0"),
    ]


LASTING = ("head", "norms", "cross_block")
"""What tasks depend on after they have been learned; other settings may change along a stream."""


def lasting(settings: ContinualSettings) -> dict[str, str]:
    """By name, the settings of `LASTING`."""
    return {name: str(getattr(settings, name)) for name in LASTING}


def settings(preset: Preset = Preset.DEFAULT) -> ContinualSettings:
    """The settings of a preset."""
    return _published() if preset is Preset.PUBLISHED else _default()


def _default() -> ContinualSettings:
    return ContinualSettings(
        training=TrainingSettings(
            epochs=20, max_steps=2000, optimiser=Optimiser.ADAM, learning_rate=2e-3, nesterov=False, weight_decay=0.0
        ),
        search=SearchSettings(epochs=10, max_steps=200, batch_size=128, learning_rate=1e-2),
        rank_batches=100,
    )


def _published() -> ContinualSettings:
    """Of CIFAR-10: CIFAR-100 has 50 epochs, TinyImageNet 50, 20 of search, and a weight decay of 1e-4."""
    return ContinualSettings(
        training=TrainingSettings(
            epochs=30,
            batch_size=128,
            optimiser=Optimiser.ADAM,
            learning_rate=1e-3,
            nesterov=False,
            weight_decay=0.0,
            schedule=Schedule.CONSTANT,
        ),
        search=SearchSettings(placement=Placement.BEFORE_NORM, epochs=10, batch_size=64, learning_rate=1e-3),
        cross_block=CrossBlock.FROZEN,
        head=HeadKind.PUBLISHED,
    )


def from_json(values: Any) -> ContinualSettings:  # noqa: ANN401 (what JSON made of settings, or anything else)
    """Settings as they were before `dataclasses.asdict` and JSON; fields that are not there have their defaults.

    Raises:
        ValueError: There are settings that nobody knows. What is no settings at all raises what comes.
        SettingsError: A value is outside its limits.
    """
    restored: ContinualSettings = _restored(ContinualSettings, values)
    return restored


def _restored(kind: Any, values: Any) -> Any:  # noqa: ANN401
    known = {field.name: getattr(kind(), field.name) for field in fields(kind)}
    if surplus := sorted(set(values) - set(known)):
        raise ValueError(f"unknown settings {', '.join(surplus)}")
    return kind(**{name: _setting(known[name], given) for name, given in values.items()})


def _setting(default: object, given: Any) -> Any:  # noqa: ANN401
    if isinstance(default, Choice):
        return type(default).named(given)
    if is_dataclass(default):
        return _restored(type(default), given)
    return tuple(given) if isinstance(default, tuple) else given
