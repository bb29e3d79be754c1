"""How a stream of tasks is learned: the choices, and their two bundles, the default and what was published."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from structured_ensembles.options import common
from structured_ensembles.options.choices import (
    Capacity,
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
)
from structured_ensembles.options.described import check, option, part
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.training import TrainingSettings

STRUCTURED = "Structured: which channels a task takes"
FOUND = "Structured: how they are found"
TRAINING = "Training of each task, the same for all strategies"


@dataclass(frozen=True)
class ContinualSettings:
    """Everything that decides how a stream is learned, but for the backbone, the tasks and the seed.

    Each field says what it does.

    Raises:
        SettingsError: Naming every value outside its limits.
    """

    training: TrainingSettings = part(
        TrainingSettings,
        TRAINING,
        without=("log",),
        words={
            "epochs": "Of each task, at most.",
            "learning_rate": "The highest of the schedule.",
            "patience": "Stop a task after so many epochs without progress.",
        },
    )
    search: SearchSettings = part(
        SearchSettings, FOUND, without=("diversity",), words={"search_batch_size": "Images per step of the search."}
    )
    reduce: Reduce = common.reduce(FOUND)
    rank_batches: int | None = common.rank_batches(FOUND)
    rule: Rule = option(
        Rule.LOCAL, "Whether the share is of each layer (local) or of all together (global).", among=("local", "global")
    )
    threshold_over: ThresholdOver = option(
        ThresholdOver.FREE,
        "Which channels the share is of: the free ones, or all, of which only free ones can be taken.",
    )
    capacity: Capacity = option(
        Capacity.GEOMETRIC,
        "How many free channels: a share (geometric), as many for each task (equal), a number (fixed), or as few as "
        "cost little accuracy (auto). --keep, --channels and --delta, each for itself, mean theirs.",
    )
    # What was published as pruning p is keep 1 - p.
    keep: float = option(
        0.5,
        "Of geometric: the share of the free channels, in (0, 1].",
        limit="(0, 1]",
        rule="is outside (0, 1]: 0.5 gives a task half of the free channels",
    )
    tasks: int = 5
    """Of EQUAL, how many tasks there will be; the command takes it from the stream."""
    channels: int = option(8, "Of fixed: how many channels of each layer.", limit="[1, inf)")
    delta: float = option(
        0.01,
        "Of auto: the held-out accuracy that may be lost.",
        limit="[0, 1)",
        rule="is outside [0, 1): 0.01 allows one point of held-out accuracy",
    )
    cross_block: CrossBlock = option(
        CrossBlock.ZERO, "The weights by which an older task's channels read a newer task's."
    )
    norms: Norms = option(
        Norms.OWNER, "Whose normalisation layers are: of the task that owns the channel, or of every task."
    )
    exhausted: Exhausted = option(
        Exhausted.REUSE,
        "When no channel is free: learn a head on the older tasks' channels, fail, or widen the network.",
    )
    head: HeadKind = option(
        HeadKind.LINEAR,
        "What each task has of its own: one linear layer, or three with dropout on all features.",
        section="Network",
    )
    held_out: float = common.held_out(
        TRAINING, "The share of each class's training images that chooses the best epoch."
    )
    graph_seconds: float = common.graph_seconds(FOUND)

    def __post_init__(self) -> None:
        rule = f"rule {self.rule} is for ensembles: tasks take channels by rule local or global"
        diversity = "search.diversity needs several members, and a task has one: leave it empty"
        check(
            self,
            [
                (str(self.rule) in {Rule.PER_COST, Rule.TAPERED}, rule),
                (bool(self.search.diversity), diversity),
                (not self.tasks >= 1, f"tasks {self.tasks} must be at least 1"),
            ],
        )


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
    if is_dataclass(default):
        return _restored(type(default), given)
    return tuple(given) if isinstance(default, tuple) else given
