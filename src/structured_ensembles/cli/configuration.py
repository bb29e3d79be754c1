"""From what a user wrote to a plan, and from a plan to the file that repeats it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import numpy as np
import yaml

from structured_ensembles.cli.kinds import NONE, OrNone, Pair
from structured_ensembles.cli.options import AXES, COMPARED, OPTIONS, Option
from structured_ensembles.errors import SettingsError, unknown
from structured_ensembles.experiments.run import Plan
from structured_ensembles.networks import family
from structured_ensembles.options.budget import Budget
from structured_ensembles.options.choices import Choice, Preset
from structured_ensembles.options.presets import settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from _typeshed import DataclassInstance

    from structured_ensembles.experiments.comparison import Grid
    from structured_ensembles.options.ensemble import Settings

S = TypeVar("S", bound="DataclassInstance")

_RUN = {
    "data": "data",
    "image_size": "image_size",
    "architecture": "architecture",
    "network_argument": "arguments",
    "members": "members",
    "against": "against",
    "seed": "seed",
    "preset": "preset",
}
"""By option, the attribute of a plan."""
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
_HEADER = "# Everything that decides what `structens fit` makes. To repeat it: structens fit --config THIS_FILE\n"


_COMPARISON_HEADER = (
    "# Everything that decides what `structens compare` runs. To repeat it: structens compare --config THIS_FILE\n"
)


class _Loader(yaml.SafeLoader):
    """Refuses keys that are there twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for at, key in enumerate(keys) if key in keys[:at]]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read(path: str | Path, options: Mapping[str, Option] = OPTIONS) -> dict[str, Any]:
    """The values of a configuration file, by option.

    Args:
        path: The file.
        options: What it may hold.

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
        option = _option(str(key), path, options)
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


def given(parameters: Mapping[str, Any], options: Mapping[str, Option] = OPTIONS) -> dict[str, Any]:
    """Of click's parameters the options that the user wrote."""
    values = {name: value for name, value in parameters.items() if name in options and value not in (None, ())}
    return {name: dict(value) if isinstance(options[name].kind, Pair) else value for name, value in values.items()}


def merged(file: Mapping[str, Any], line: Mapping[str, Any], options: Mapping[str, Option] = OPTIONS) -> dict[str, Any]:
    """The values of a file, overridden by those of the command line, also where another name says the same.

    Raises:
        SettingsError: The line names another preset, and the file every setting that a preset could decide.
    """
    decided = {name for name, option in options.items() if option.target} - _RIVALS.keys()
    if line.get("preset", file.get("preset")) != file.get("preset") and decided <= file.keys():
        raise SettingsError(
            f"preset {line['preset']} would change nothing: the configuration names every setting. Leave --preset out, "
            "or delete the lines that it should decide"
        )
    dropped = {rival for name in line for rival in _RIVALS.get(name, ())}
    return {name: value for name, value in file.items() if name not in dropped} | dict(line)


def plan(values: Mapping[str, Any]) -> Plan:
    """The plan that the values describe.

    Raises:
        SettingsError: A value is outside its limits, or two exclude each other.
    """
    # Twice: 1 and 1.0 are equal but not alike, and a run that goes on reads what the first one has written.
    return _plan(resolved(_plan(values)))


def _plan(values: Mapping[str, Any]) -> Plan:
    if "keep" in values and values.get("budget", NONE) != NONE:
        raise SettingsError("give either budget or keep, not both: a budget finds the share to keep by itself")
    preset, kind = Preset(values.get("preset", Preset.DEFAULT)), family(values.get("architecture", Plan.architecture))
    attributes = {_RUN[name]: value for name, value in values.items() if name in _RUN} | {"preset": preset}
    return Plan(**attributes, settings=_changed(settings(preset, kind), values))


def _changed(start: Settings, values: Mapping[str, Any]) -> Settings:
    return placed(start, {**values, "budget": NONE} if "keep" in values else values, OPTIONS)


def placed(start: S, values: Mapping[str, Any], options: Mapping[str, Option]) -> S:
    """Settings with the values in their places, each part replaced at once: its limits hold for the whole.

    Args:
        start: A dataclass, some of whose fields are dataclasses.
        values: By option; those without a target are none of the settings.
        options: By name.
    """
    parts: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        part, _, attribute = options[name].target.rpartition(".")
        if attribute:
            holder = getattr(start, part) if part else start
            parts.setdefault(part, {})[attribute] = _typed(options[name], value, getattr(holder, attribute))
    if "epochs" in values and "steps" not in values:
        parts["training"]["max_steps"] = None  # who asks for 100 epochs wants 100 epochs
    whole = parts.pop("", {})
    return replace(start, **whole, **{part: replace(getattr(start, part), **new) for part, new in parts.items()})


def _typed(option: Option, value: Any, before: Any) -> Any:  # noqa: ANN401
    if isinstance(option.kind, OrNone) and value == NONE:
        return None
    if option.name == "budget":
        return Budget.parse(value)
    return type(before)(value) if isinstance(before, Choice) else value


def resolved(plan: Plan) -> dict[str, Any]:
    """Every option's value, as a configuration file holds it; `plan` makes an equal plan of it."""
    values = written(plan, _RUN, OPTIONS)
    unused = "keep" if plan.settings.budget else "budget"
    return {name: value for name, value in values.items() if name != unused}


def written(plan: Any, attributes: Mapping[str, str], options: Mapping[str, Option]) -> dict[str, Any]:  # noqa: ANN401
    """By option, what a plan holds, as a configuration file does; an image size that nobody asked for is left out.

    Args:
        plan: Has the attributes, and settings.
        attributes: By option without a target, that of the plan.
        options: By name, in the order of the file.
    """
    values: dict[str, Any] = {}
    for name, option in options.items():
        if option.target:
            part, _, attribute = option.target.rpartition(".")
            values[name] = _plain(getattr(getattr(plan.settings, part) if part else plan.settings, attribute))
        elif name in attributes:
            values[name] = _plain(getattr(plan, attributes[name]))
    return {name: value for name, value in values.items() if (name, value) != ("image_size", None)}


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Budget):
        return f"{np.format_float_positional(value.amount, trim='-')}{'x' if value.relative else ''} {value.unit}"
    if isinstance(value, Choice):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if hasattr(value, "items") else value


def text(plan: Plan) -> str:
    """The configuration file of a plan."""
    return _HEADER + as_yaml(resolved(plan))


def comparison_text(grid: Grid) -> str:
    """The configuration file of a comparison."""
    axes = {axis.name: list(getattr(grid, axis.name)) for axis in AXES}
    return _COMPARISON_HEADER + as_yaml(axes | common(grid))


def common(grid: Grid) -> dict[str, Any]:
    """The options that all runs of a comparison share."""
    names = COMPARED.keys() - {axis.name for axis in AXES}
    return {name: value for name, value in resolved(grid.plan).items() if name in names}


def comparison(values: Mapping[str, Any]) -> Grid:
    """The comparison that the values describe; axes that they do not name have their defaults.

    Raises:
        SettingsError: A value is outside its limits, or two exclude each other.
    """
    from structured_ensembles.experiments.comparison import Grid, arms

    axes = {axis.name: tuple(values[axis.name]) for axis in AXES if axis.name in values}
    common = plan({name: value for name, value in values.items() if name not in axes})
    if all_of("methods", axes.get("methods", (ALL,))):
        axes["methods"] = arms(common)
    return Grid(common, **axes)


def all_of(name: str, values: Sequence[str]) -> bool:
    """Whether an axis is to hold everything.

    Raises:
        SettingsError: And something else beside it.
    """
    if ALL in values and len(values) > 1:
        raise SettingsError(f"{name} all names every one already: leave out the others, or all")
    return ALL in values


def as_yaml(values: Mapping[str, Any]) -> str:
    """Lines of the form ``name: value``."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
