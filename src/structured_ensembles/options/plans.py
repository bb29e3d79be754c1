"""What a command is asked to do: a fit, a comparison of methods, a stream of tasks, and what all of them name."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from structured_ensembles.errors import SettingsError, unknown
from structured_ensembles.options import presets, streams
from structured_ensembles.options.budget import Budget
from structured_ensembles.options.catalogue import ARCHITECTURES, FORMATS, LIBRARIES, METHODS, SOURCES, STRATEGIES
from structured_ensembles.options.choices import Capacity, Family, Log, Preset, StreamKind
from structured_ensembles.options.described import Described, check, described, option, part
from structured_ensembles.options.ensemble import Settings
from structured_ensembles.options.streams import ContinualSettings

Scalar: TypeAlias = str | int | float | bool | None
"""An argument of an architecture, as JSON holds it."""

PUBLISHED = "published"
"""The arm of the structured method with the published settings of everything but training."""
ARMS = ("single", "structured", PUBLISHED, *(name for name in METHODS if name not in ("single", "structured")))
"""What can be compared, in the order of tables."""


def _data(purpose: str) -> str:
    paths, names = "; ".join(map(FORMATS.about, FORMATS)), ", ".join(SOURCES)
    words = f"What to {purpose}: {paths}; or by name {names}, all but digits downloaded."
    return option("digits", words, section="Data")  # type: ignore[no-any-return]


def _architecture(purpose: str) -> str:
    names = ", ".join((*ARCHITECTURES, *(f"{library}:NAME" for library in LIBRARIES)))
    return option("small_cnn", f"The network to {purpose}: {names}.", section="Network")  # type: ignore[no-any-return]


def _preset(section: str) -> Preset:
    # For the record only: the settings say everything.
    words = "Where all settings start from: what we recommend, or what was published."
    about = described(Described(words, section=section))
    return field(default=Preset.DEFAULT, repr=False, compare=False, metadata=about)


@dataclass(frozen=True)
class Planned:
    """What every plan names: data, a network, and what its settings started from."""

    data: str = _data("learn from")
    image_size: int | None = option(None, "Resize all images to this height and width.", section="Data")
    architecture: str = _architecture("start from")
    arguments: Mapping[str, Scalar] = option(
        dict,
        "An argument of the architecture, such as shortcut=pad for resnet20 or width=256 for mlp. Repeatable.",
        key="network_argument",
        section="Network",
    )


@dataclass(frozen=True)
class Plan(Planned):
    """What decides the outcome of a fit; each field says what it does.

    Raises:
        SettingsError: An unknown method, or logs for a library that is not installed.
    """

    members: int = option(4, "How many networks answer together.", section="Ensemble")
    settings: Settings = part(presets.settings, "Ensemble")
    preset: Preset = _preset("Ensemble")
    against: tuple[str, ...] = option(
        (),
        "Also fit these on the same images, and compare: single (one whole network), deep (as many whole networks as "
        "there are members), or another method of `structens compare`.",
        section="Ensemble",
    )
    seed: int = option(0, "Of everything random: the same seed gives the same files, to the byte.", section="Ensemble")

    def __post_init__(self) -> None:
        check(self)
        rivals = [name for name in METHODS if name != "structured"]
        for name in self.against:
            if name not in rivals:
                raise unknown("method to compare with", name, rivals)
        if self.settings.training.log is Log.TENSORBOARD and importlib.util.find_spec("tensorboard") is None:
            raise SettingsError("log tensorboard needs a package: pip install 'structured-ensembles[tensorboard]'")

    @classmethod
    def of(cls, preset: Preset, architecture: str = "small_cnn") -> Plan:
        """The plan that a preset gives for an architecture."""
        settings = presets.settings(preset, Family.of(architecture))
        return cls(architecture=architecture, settings=settings, preset=preset)


@dataclass(frozen=True)
class Grid:
    """A comparison: every method for every number of members, every budget and every seed.

    Raises:
        SettingsError: An axis is empty, or holds something unknown or twice.
    """

    plan: Plan = part(Plan, "", without=("members", "seed", "against", "budget", "keep", "log"))
    methods: tuple[str, ...] = option(ARMS, "Which methods, or all.", section="Comparison")
    members: tuple[int, ...] = option((4,), "How many networks answer together; each number.", section="Comparison")
    budgets: tuple[str, ...] = option(
        ("1x",), "What they may cost, where a method can choose; each budget.", section="Comparison"
    )
    seeds: tuple[int, ...] = option(
        tuple(range(5)), "How many seeds, or which: 5, 5-9 or 3,7.", seeds=True, section="Comparison"
    )

    def __post_init__(self) -> None:
        if {"structured", PUBLISHED} <= {*self.methods} and PUBLISHED not in arms(self.plan):
            raise SettingsError("with these settings structured and published are one method: leave one of them out")
        for name in self.methods:
            if name not in (*ARMS, *METHODS):
                raise unknown("method", name, (*ARMS, *METHODS))
        if wrong := [count for count in self.members if count < 1]:
            raise SettingsError(f"members {wrong[0]} must be at least 1")
        for name in ("methods", "members", "seeds"):
            _check_axis(name, getattr(self, name))
        _check_axis("budgets", [Budget.parse(budget) for budget in self.budgets], self.budgets)

    @classmethod
    def of(cls, preset: Preset, architecture: str = "small_cnn") -> Grid:
        """The comparison that a preset gives for an architecture."""
        plan = Plan.of(preset, architecture)
        return cls(plan, arms(plan))


def arms(plan: Plan) -> tuple[str, ...]:
    """What can be compared under a plan: `ARMS`, without the published one where the settings are those anyway."""
    alike = settings_of(plan, "structured", "") == settings_of(plan, PUBLISHED, "")
    return tuple(name for name in ARMS if name != PUBLISHED or not alike)


def settings_of(plan: Plan, arm: str, budget: str) -> Settings:
    """The plan's; for the published arm the published ones, but training and split, which are the same for all."""
    quiet = replace(plan.settings.training, log=Log.NONE)  # logs would go with the state
    common = replace(plan.settings, budget=Budget.parse(budget) if budget else None, training=quiet)
    if arm != PUBLISHED:
        return common
    published = presets.settings(Preset.PUBLISHED, Family.of(plan.architecture))
    return replace(published, budget=common.budget, training=common.training, held_out=common.held_out)


@dataclass(frozen=True)
class StreamPlan(Planned):
    """What every cell of a grid of streams has in common; each field says what it does.

    Raises:
        SettingsError: Both or too few sources are given.
    """

    data: str = _data("make tasks of")
    architecture: str = _architecture("share")
    kind: StreamKind = option(
        StreamKind.SPLIT,
        "What tells the tasks apart: their classes, the order of the pixels, or how far images are turned.",
        key="stream",
        section="Stream",
    )
    tasks: int = option(5, "How many tasks there are.", section="Stream")
    sources: tuple[str, ...] = option(
        (), "Instead of --data: two or more sources, which are a task each.", section="Stream"
    )
    settings: ContinualSettings = part(streams.settings, streams.STRUCTURED)
    preset: Preset = _preset(streams.STRUCTURED)

    def __post_init__(self) -> None:
        check(self)
        if len(self.sources) == 1:
            raise SettingsError(f"sources {self.sources[0]} is one task: name two or more, or split it with data")
        if self.tasks < 2:
            raise SettingsError(f"tasks {self.tasks} must be at least 2: a stream has several tasks")

    @classmethod
    def of(cls, preset: Preset, architecture: str = "small_cnn") -> StreamPlan:
        """The plan that a preset gives: here it is known how many tasks share the channels."""
        settings = streams.settings(preset)
        if preset is Preset.DEFAULT:
            settings = replace(settings, capacity=Capacity.EQUAL)
        return cls(architecture=architecture, settings=settings, preset=preset)


@dataclass(frozen=True)
class StreamGrid:
    """Streams to compare: every strategy for every seed of the split, the permutations and the networks.

    Raises:
        SettingsError: An axis is empty, or holds something unknown or twice.
    """

    plan: StreamPlan = part(StreamPlan, "")
    strategies: tuple[str, ...] = option(
        tuple(STRATEGIES), f"Which, or all: {', '.join(STRATEGIES)}.", section="Comparison"
    )
    seeds: tuple[int, ...] = option((0,), "How many seeds, or which: 5, 5-9 or 3,7.", seeds=True, section="Comparison")

    def __post_init__(self) -> None:
        for name in self.strategies:
            STRATEGIES.check(name)
        _check_axis("strategies", self.strategies)
        _check_axis("seeds", self.seeds)

    @classmethod
    def of(cls, preset: Preset, architecture: str = "small_cnn") -> StreamGrid:
        """The grid that a preset gives."""
        return cls(StreamPlan.of(preset, architecture))


def _check_axis(name: str, values: Sequence[object], written: Sequence[object] = ()) -> None:
    """Refuse an axis that is empty, or holds something twice or a seed below 0; ``written`` is how the user put it."""
    rule, words = f"{name} must be at least one, and none twice", written or values
    if not values:
        raise SettingsError(rule)
    for at, value in enumerate(values):
        if (first := values.index(value)) < at:
            raise SettingsError(f"{rule}: {words[first]}, {words[at]}")
        if name == "seeds" and isinstance(value, int) and value < 0:
            raise SettingsError(f"seed {value} must be at least 0")
