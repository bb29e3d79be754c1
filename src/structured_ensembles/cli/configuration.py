"""From what a user wrote to a plan, and from a plan to the file that repeats it."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click
import yaml

from structured_ensembles.cli.kinds import NONE, OrNone, Pair
from structured_ensembles.cli.options import Option, axes, options_of
from structured_ensembles.errors import SettingsError, unknown
from structured_ensembles.options.budget import Budget
from structured_ensembles.options.catalogue import STRATEGIES
from structured_ensembles.options.choices import Capacity, Choice, Preset
from structured_ensembles.options.plans import Grid, Plan, StreamGrid, arms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

P = TypeVar("P", Plan, Grid, StreamGrid)
Kind: TypeAlias = type[Any]  # Plan, Grid or StreamGrid

_RIVALS = {
    "keep": ("budget", "capacity", "channels", "delta"),
    "channels": ("capacity", "keep", "delta"),
    "delta": ("capacity", "keep", "channels"),
    "budget": ("keep",),
    "epochs": ("steps",),
    "sources": ("data", "stream", "tasks"),
    **dict.fromkeys(("data", "stream", "tasks"), ("sources",)),
}
"""Options that say something in place of others."""
ALL = "all"
"""Of an axis, everything that it can hold."""
_OF_ONE_SOURCE = ("data", "stream", "tasks")
"""Options of a stream that is made of one source."""
_IMPLIED = {"keep": Capacity.GEOMETRIC, "channels": Capacity.FIXED, "delta": Capacity.AUTO}
"""By option, the capacity that is meant by whoever gives it and names none."""


class _Loader(yaml.SafeLoader):
    """Refuses keys that are there twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for at, key in enumerate(keys) if key in keys[:at]]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read(path: str | Path, kind: Kind = Plan) -> dict[str, Any]:
    """The values of a configuration file, by option.

    Args:
        path: The file.
        kind: Of plan, whose options it may hold.

    Raises:
        SettingsError: It cannot be read, is no YAML mapping, has an unknown key, or a value of another type.
    """
    try:
        content = yaml.load(Path(path).expanduser().read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a safe one)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"the configuration {path} cannot be read: {reason}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsError(f"the configuration {path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"the configuration {path} must be lines of the form `members: 4`")
    values: dict[str, Any] = {}
    for key, value in content.items():
        option = _option(str(key), path, options_of(kind))
        if option.name in values:
            raise SettingsError(f"{path} names {option.name} twice")
        values[option.name] = _value(option, value, path)
    return values


def _option(key: str, path: str | Path, options: Mapping[str, Option]) -> Option:
    name = key.replace("-", "_")
    if name not in options:
        raise unknown(f"key of {path}", key, options)
    return options[name]


def _value(option: Option, value: Any, path: str | Path) -> Any:  # noqa: ANN401 (whatever YAML holds)
    """The value as the command line would give it."""
    parameter = click.Option([f"--{option.name}"])
    try:
        if not isinstance(option.kind, Pair):
            return option.kind.convert(value, parameter, None)
        if not isinstance(value, dict):
            raise SettingsError(f"{path}: {option.name} must be lines of the form `name: value` below it")
        return dict(option.kind.convert((str(key), entry), parameter, None) for key, entry in value.items())
    except click.UsageError as error:
        raise SettingsError(f"{path}: {option.name}: {error.message}") from error


def given(parameters: Mapping[str, Any], kind: Kind = Plan) -> dict[str, Any]:
    """Of click's parameters the options that the user wrote."""
    options = options_of(kind)
    values = {name: value for name, value in parameters.items() if name in options and value not in (None, ())}
    return {name: dict(value) if isinstance(options[name].kind, Pair) else value for name, value in values.items()}


def merged(file: Mapping[str, Any], line: Mapping[str, Any], kind: Kind = Plan) -> dict[str, Any]:
    """The values of a file, overridden by those of the command line, also where another name says the same.

    Raises:
        SettingsError: The line names another preset, and the file every setting that a preset could decide.
    """
    decided = {name for name, option in options_of(kind).items() if "settings" in option.setting.path} - _RIVALS.keys()
    if line.get("preset", file.get("preset")) != file.get("preset") and decided <= file.keys():
        raise SettingsError(
            f"preset {line['preset']} would change nothing: the configuration names every setting. Leave --preset out, "
            "or delete the lines that it should decide"
        )
    dropped = {rival for name in line for rival in _RIVALS.get(name, ())}
    return {name: value for name, value in file.items() if name not in dropped} | dict(line)


def plan(values: Mapping[str, Any]) -> Plan:
    """The plan of a fit that the values describe.

    Raises:
        SettingsError: A value is outside its limits, or two exclude each other.
    """
    if "keep" in values and values.get("budget", NONE) != NONE:
        raise SettingsError("give either budget or keep, not both: a budget finds the share to keep by itself")
    return placed(Plan.of(*_start(values)), {**values, "budget": NONE} if "keep" in values else values)


def comparison(values: Mapping[str, Any]) -> Grid:
    """The comparison that the values describe; axes that they do not name have their defaults.

    Raises:
        SettingsError: A value is outside its limits, or two exclude each other.
    """
    lists, rest = _divided(values, Grid)
    common = plan(rest)
    if all_of("methods", lists.get("methods", (ALL,))):
        lists["methods"] = arms(common)
    return Grid(common, **lists)


def streams(values: Mapping[str, Any]) -> StreamGrid:
    """The grid of streams that the values describe; axes that they do not name have their defaults.

    Raises:
        SettingsError: A value is outside its limits, or two exclude each other.
    """
    lists, rest = _divided(values, StreamGrid)
    if all_of("strategies", lists.get("strategies", ())):
        lists["strategies"] = tuple(STRATEGIES)
    if "sources" in rest and (others := [name for name in _OF_ONE_SOURCE if name in rest]):
        raise SettingsError(f"sources are the tasks, one each: leave out {', '.join(others)}")
    implied = [capacity for name, capacity in _IMPLIED.items() if name in rest]
    if "capacity" not in rest and len(implied) > 1:
        raise SettingsError("keep, channels and delta belong to different capacities: name the capacity, or give one")
    given = {"capacity": implied[0], **rest} if implied else rest
    return replace(placed(StreamGrid.of(*_start(rest)), given), **lists)


def _start(values: Mapping[str, Any]) -> tuple[Preset, str]:
    """What settings start from: a preset, and an architecture."""
    return Preset(values.get("preset", Preset.DEFAULT)), values.get("architecture", Plan.architecture)


def _divided(values: Mapping[str, Any], kind: Kind) -> tuple[dict[str, Any], dict[str, Any]]:
    """The axes of a grid, and the rest."""
    lists = {name: tuple(values[name]) for name in axes(kind) if name in values}
    return lists, {name: value for name, value in values.items() if name not in lists}


def placed(start: P, values: Mapping[str, Any]) -> P:
    """A plan with the values in their places, each part replaced at once: its limits hold for the whole."""
    if "epochs" in values and "steps" not in values:
        values = {**values, "steps": NONE}  # who asks for 100 epochs wants 100 epochs
    options, changes = options_of(type(start)), dict[str, Any]()
    for name, value in values.items():
        *parts, last = options[name].setting.path
        inner = changes
        for part in parts:
            inner = inner.setdefault(part, {})
        empty = value is None or (value == NONE and isinstance(options[name].kind, OrNone))
        inner[last] = None if empty else tuple(value) if isinstance(value, list) else value
    made: P = _replaced(start, changes)
    return made


def _replaced(whole: Any, changes: Mapping[str, Any]) -> Any:  # noqa: ANN401 (settings of any kind)
    """Settings with some fields changed, those of their parts included."""
    found = {name: getattr(whole, name) for name in changes}
    return replace(
        whole,
        **{name: _replaced(old, changes[name]) if _is_part(old) else changes[name] for name, old in found.items()},
    )


def _is_part(value: object) -> bool:
    return is_dataclass(value) and not isinstance(value, Budget)


def resolved(plan: Plan | Grid | StreamGrid) -> dict[str, Any]:
    """Every option's value, as a configuration file holds it, which makes an equal plan of it."""
    found = {name: _plain(option.setting.of(plan)) for name, option in options_of(type(plan)).items()}
    asked = {name: value for name, value in found.items() if (name, value) != ("image_size", None)}
    return {name: value for name, value in asked.items() if name not in _unused(plan)}


def _unused(plan: Plan | Grid | StreamGrid) -> Sequence[str]:
    """Options that others stand in for."""
    if isinstance(plan, StreamGrid):
        return _OF_ONE_SOURCE if plan.plan.sources else ("sources",)
    return () if isinstance(plan, Grid) else ("keep",) if plan.settings.budget else ("budget",)


def common(grid: Grid | StreamGrid) -> dict[str, Any]:
    """The options that all runs of a grid share."""
    return {name: value for name, value in resolved(grid).items() if name not in axes(type(grid))}


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Budget | Choice):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if hasattr(value, "items") else value


def text(plan: Plan | Grid | StreamGrid) -> str:
    """The configuration file of a plan."""
    verb, what = {Plan: ("fit", "makes"), Grid: ("compare", "runs"), StreamGrid: ("continual", "runs")}[type(plan)]
    head = (
        f"# Everything that decides what `structens {verb}` {what}. To repeat it: structens {verb} --config THIS_FILE"
    )
    return f"{head}\n{yaml.safe_dump(resolved(plan), sort_keys=False, allow_unicode=True)}"


def all_of(name: str, values: Sequence[str]) -> bool:
    """Whether an axis is to hold everything.

    Raises:
        SettingsError: And something else beside it.
    """
    if ALL in values and len(values) > 1:
        raise SettingsError(f"{name} all names every one already: leave out the others, or all")
    return ALL in values
