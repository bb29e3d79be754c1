"""The options of a verb, which are also the keys of its configuration file: made of what settings say of themselves."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from structured_ensembles.cli import kinds
from structured_ensembles.cli.verb import Command, Verb, together
from structured_ensembles.options import ensemble, streams
from structured_ensembles.options.budget import Budget
from structured_ensembles.options.choices import Choice, Preset
from structured_ensembles.options.described import Setting, alternatives, chosen_in
from structured_ensembles.options.plans import Grid, Plan, StreamGrid

if TYPE_CHECKING:
    from collections.abc import Callable

    from structured_ensembles.cli.kinds import Kind

TITLES = (
    "Stream",
    "Comparison",
    "Data",
    "Network",
    "Ensemble",
    ensemble.SEARCH,
    ensemble.SELECTION,
    ensemble.TRAINING,
    streams.STRUCTURED,
    streams.FOUND,
    streams.TRAINING,
)
"""Of the sections, in the order of the help."""
_LISTS = ("methods", "strategies")
"""Axes that hold everything there is, unless they are told otherwise."""
_KINDS: Mapping[Any, Kind] = {
    str: kinds.Text(),
    int: kinds.Whole(),
    float: kinds.Number(),
    bool: kinds.Switch(),
    Budget: kinds.Text(),
}


@dataclass(frozen=True)
class Option:
    """One thing that a user can choose.

    Attributes:
        setting: Which, and what it does.
        kind: What its value may be.
        shown: Its default, and the published value where that is another one, as the help ends.
    """

    setting: Setting
    kind: Kind
    shown: str

    @property
    def name(self) -> str:
        """As the key of a configuration file; on the command line with dashes."""
        return self.setting.key


def options_of(plan: Any) -> Mapping[str, Option]:  # noqa: ANN401 (one of the kinds of plans)
    """Everything that a plan holds, by name, section by section: what `fit`, `compare` or `continual` can be told."""
    if plan not in _MADE:
        found = sorted(chosen_in(plan), key=lambda setting: TITLES.index(setting.section))
        default, published = (plan.of(preset) for preset in (Preset.DEFAULT, Preset.PUBLISHED))
        _MADE[plan] = {one.key: Option(one, _kind(one), _shown(one, default, published)) for one in found}
    return _MADE[plan]


_MADE: dict[Any, Mapping[str, Option]] = {}
"""What `options_of` has described: each takes time, and few are needed."""


def _kind(setting: Setting) -> Kind:
    if setting.about.seeds:
        return kinds.Seeds()
    inner, optional = alternatives(setting.type)
    arguments = typing.get_args(inner)
    if typing.get_origin(inner) is tuple:
        return kinds.Several(_KINDS[arguments[0]])
    if arguments:  # a mapping
        return kinds.Pair(_KINDS.get(arguments[1], kinds.Scalar()))
    kind = kinds.OneOf(*(setting.about.among or map(str, inner))) if issubclass(inner, Choice) else _KINDS[inner]
    return kinds.OrNone(kind) if optional else kind


def _shown(setting: Setting, default: Plan | Grid | StreamGrid, published: Plan | Grid | StreamGrid) -> str:
    first, second = (_text(setting.of(plan)) for plan in (default, published))
    if setting.key in _LISTS:
        return "[default: all]"
    if setting.about.seeds:
        return f"[default: {len(setting.of(default))}]"
    if setting.about.quiet or not first:
        return ""
    other = f"; published: {second}" if second != first and setting.key != "preset" else ""
    return f"[default: {first}{other}]"


def _text(value: Any) -> str:  # noqa: ANN401 (whatever settings hold)
    """As one would type it."""
    if value is None or isinstance(value, bool):
        return {None: kinds.NONE, True: "yes", False: "no"}[value]
    if isinstance(value, Mapping):
        return ",".join(f"{name}={_text(one)}" for name, one in value.items())
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value).removesuffix(" bytes")


def axes(grid: type[Any]) -> list[str]:
    """Those of a grid's options of which each stands for several runs."""
    return [name for name, option in options_of(grid).items() if len(option.setting.path) == 1]


def declared(*options: Option) -> Callable[[Command], Command]:
    """Decorate a verb with options; what the user does not give arrives as None, or as () if it is repeatable."""
    return together(*map(_declaration, options))


def _declaration(option: Option) -> Callable[[Command], Command]:
    name = "--" + option.name.replace("_", "-")
    make = partial(click.option, help=f"{option.setting.about.help} {option.shown}".strip())
    if isinstance(option.kind, kinds.Switch):
        return make(f"{name}/--no-{name[2:]}", option.name, default=None)
    return make(name, option.name, type=option.kind, multiple=isinstance(option.kind, kinds.Pair), metavar=None)


class Sectioned(Verb):
    """A command whose help lists its options under titles.

    Args:
        options: By name; what else it takes comes last.
    """

    def __init__(self, *args: Any, options: Mapping[str, Option], **kwargs: Any) -> None:  # noqa: ANN401 (click's own)
        super().__init__(*args, **kwargs)
        self.options = options

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those that are in no section last."""
        records = {param.name: param.get_help_record(ctx) for param in self.get_params(ctx)}
        titles = {name: option.setting.section for name, option in self.options.items()}
        for title in (*dict.fromkeys(titles.values()), "Run"):
            listed = [record for name, record in records.items() if record and titles.get(str(name), "Run") == title]
            with formatter.section(title):
                formatter.write_dl(listed, col_max=28)
