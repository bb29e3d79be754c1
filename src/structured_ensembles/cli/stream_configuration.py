"""From what a user wrote to a grid of streams, and from a grid to the file that repeats it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from structured_ensembles.cli.configuration import all_of, as_yaml, placed, written
from structured_ensembles.cli.stream_options import STREAM_AXES, STREAM_OPTIONS
from structured_ensembles.continual.strategies import STRATEGIES
from structured_ensembles.errors import SettingsError
from structured_ensembles.experiments.streams import StreamGrid, StreamPlan
from structured_ensembles.options.choices import Capacity, Preset
from structured_ensembles.options.streams import settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAN = {
    "data": "data",
    "stream": "kind",
    "tasks": "tasks",
    "sources": "sources",
    "image_size": "image_size",
    "architecture": "architecture",
    "network_argument": "arguments",
    "preset": "preset",
}
"""By option, the attribute of a plan."""
_MADE_OF_ONE = ("data", "stream", "tasks")
"""Options of a stream that is made of one source."""
_IMPLIED = {"keep": Capacity.GEOMETRIC, "channels": Capacity.FIXED, "delta": Capacity.AUTO}
"""By option, the capacity that is meant by whoever gives it and names none."""
_HEADER = (
    "# Everything that decides what `structens continual` runs. To repeat it: structens continual --config THIS_FILE\n"
)


def grid(values: Mapping[str, Any]) -> StreamGrid:
    """The grid that the values describe; axes that they do not name have their defaults.

    Raises:
        SettingsError: A value is outside its limits, or two exclude each other.
    """
    axes = {axis.name: tuple(values[axis.name]) for axis in STREAM_AXES if axis.name in values}
    if all_of("strategies", axes.get("strategies", ())):
        axes["strategies"] = tuple(STRATEGIES)
    common = {name: value for name, value in values.items() if name not in axes}
    return StreamGrid(_plan(common), **axes)


def _plan(values: Mapping[str, Any]) -> StreamPlan:
    if "sources" in values and (others := [name for name in _MADE_OF_ONE if name in values]):
        raise SettingsError(f"sources are the tasks, one each: leave out {', '.join(others)}")
    attributes = {_PLAN[name]: value for name, value in values.items() if name in _PLAN}
    if "sources" in attributes:
        attributes["sources"] = tuple(attributes["sources"])
    preset = attributes["preset"] = Preset(values.get("preset", Preset.DEFAULT))
    start = settings(preset)
    if preset is Preset.DEFAULT:  # here it is known how many tasks share the channels
        start = replace(start, capacity=Capacity.EQUAL)
    implied = [capacity for name, capacity in _IMPLIED.items() if name in values]
    if "capacity" not in values and len(implied) > 1:
        raise SettingsError("keep, channels and delta belong to different capacities: name the capacity, or give one")
    if "capacity" not in values and implied:
        start = replace(start, capacity=implied[0])
    return StreamPlan(**attributes, settings=placed(start, values, STREAM_OPTIONS))


def resolved(plan: StreamPlan) -> dict[str, Any]:
    """Every option's value but the axes, as a configuration file holds it."""
    values = written(plan, _PLAN, STREAM_OPTIONS)
    unused = _MADE_OF_ONE if plan.sources else ("sources",)
    return {name: value for name, value in values.items() if name not in unused}


def text(grid: StreamGrid) -> str:
    """The configuration file of a grid."""
    axes = {axis.name: list(getattr(grid, axis.name)) for axis in STREAM_AXES}
    return _HEADER + as_yaml(axes | resolved(grid.plan))
