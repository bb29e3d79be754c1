"""The charts of a stream: results in, an SVG with a text alternative out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from structured_ensembles.continual.results import curves
from structured_ensembles.continual.results.curves import JOINT, SEPARATE, Curve, Results
from structured_ensembles.evaluation.report import _svg
from structured_ensembles.evaluation.report._svg import WIDTH, Axis, Chart, Frame
from structured_ensembles.evaluation.report.words import percent, size

TASK_COLOURS = 14
"""How many ways the style sheet has to fill the channels of a task, t0 to t13."""

_CONTEXT = 5
"""The line style of what stays in the background."""
_PITCH = 44
_LONGEST = 34
"""Letters of a layer's name that have a place beside its numbers."""


def accuracy(results: Results, name: str) -> Chart:
    """Mean accuracy over the tasks so far, of one strategy before all others."""
    lines = {one: curves.accuracy(runs) for one, runs in results.items()}
    lowest = min(spread.mean - (spread.deviation or 0) for curve in lines.values() for spread in curve)
    low = max(math.floor(20 * lowest - 1e-9) / 20, 0.0)
    step = next(step for step in (0.02, 0.05, 0.1, 0.25) if (1 - low) / step <= 5.01 or step == 0.25)
    ticks = [(value, percent(value, 0)) for i in range(51) if (value := 1 - i * step) >= low - 1e-9]
    start, end = lines[name][0].mean, lines[name][-1].mean
    alt = f"Mean accuracy over the tasks so far: {name} goes from {percent(start)} to {percent(end)}."
    return _chart(results, name, Frame(_tasks(results), Axis("accuracy", low, 1, ticks)), lines, alt)


def memory(results: Results, name: str) -> Chart:
    """Bytes that answering needs, of one strategy before all others."""
    lines = {one: curves.memory(runs) for one, runs in results.items()}
    values = _svg.rounded(max(spread.mean for curve in lines.values() for spread in curve))
    start, end = lines[name][0].mean, lines[name][-1].mean
    alt = f"Bytes to answer for the tasks so far: {name} goes from {size(start)} to {size(end)}" + (
        f", separate networks to {size(lines[SEPARATE][-1].mean)}." if SEPARATE in lines else "."
    )
    axis = Axis("bytes", 0, values[-1], [(value, size(value)) for value in values])
    return _chart(results, name, Frame(_tasks(results), axis, left=62), lines, alt)


def owners(found: Mapping[str, Sequence[int]], labels: Sequence[str]) -> Chart:
    """A strip for each layer: how many of its channels each task owns, and how many are free.

    Args:
        found: By layer, which task owns each channel, -1 where none does.
        labels: What tasks are called.
    """
    free = sum(list(strip).count(-1) for strip in found.values())
    channels = sum(map(len, found.values()))
    tasks = max(max(strip, default=-1) for strip in found.values()) + 1
    alt = f"Who owns which channels: {tasks} tasks own {channels - free} of {channels}, {free} are free."
    strips = [part for i, (name, strip) in enumerate(found.items()) for part in _strip(24 + _PITCH * i, name, strip)]
    legend = tuple(("area", _owner(task), labels[task]) for task in range(tasks))
    picture = _svg.picture(alt, _PITCH * len(found) - 6, strips)
    return Chart(picture, alt, (*legend, ("area", "free", "free")))


def _strip(top: float, name: str, strip: Sequence[int]) -> list[Markup]:
    """The channels of a layer, those of one task side by side, under its name."""
    short, free = curves.short(name), list(strip).count(-1)
    kept = short if len(short) <= _LONGEST else "\N{HORIZONTAL ELLIPSIS}" + short[-_LONGEST:]
    parts = [_svg.words(0, top - 8, kept), _svg.words(WIDTH, top - 8, f"{free} of {len(strip)} free", "end")]
    place = 0.0
    for task in (*sorted({owner for owner in strip if owner >= 0}), -1):
        width = WIDTH * list(strip).count(task) / max(len(strip), 1)
        parts += [_svg.bar(place, top, max(width - 1.5, 0.5), 14, _owner(task))] if width else []
        place += width
    return parts


def _owner(task: int) -> str:
    return "free" if task < 0 else f"t{task % TASK_COLOURS}"


def _tasks(results: Results) -> Axis:
    return _svg.numbered("tasks learned", len(curves.task_names(next(iter(results.values())))))


def _chart(results: Results, name: str, frame: Frame, lines: Mapping[str, Curve], alt: str) -> Chart:
    """The others as faint lines, then the two bounds, then the strategy itself with its spread."""
    named = {one: style for style, one in enumerate((name, SEPARATE, JOINT)) if one in results}
    named[name] = 0
    faint = [one for one in results if one not in named]
    drawn = [_svg.line(frame, _spots(lines[one]), _CONTEXT) for one in faint]
    drawn += [_svg.line(frame, _spots(lines[one]), style) for one, style in named.items() if style]
    drawn += [_band(frame, lines[name]), _svg.line(frame, _spots(lines[name]), 0, dots=True)]
    legend = [("line", f"s{style}", one) for one, style in named.items()]
    legend += [("line", f"s{_CONTEXT}", "the others" if len(faint) > 1 else faint[0])] if faint else []
    return _svg.chart(alt, frame, drawn, legend if len(results) > 1 else ())


def _spots(curve: Curve) -> list[tuple[float, float]]:
    return [(i + 1.0, one.mean) for i, one in enumerate(curve)]


def _band(frame: Frame, curve: Curve) -> Markup:
    """One standard deviation to both sides."""
    wide = [(i + 1.0, one.mean, one.deviation or 0.0) for i, one in enumerate(curve)]
    edge = [(x, mean + spread) for x, mean, spread in wide] + [(x, mean - spread) for x, mean, spread in wide[::-1]]
    places = " ".join(f"{frame.across(x):.1f},{frame.up(y):.1f}" for x, y in edge)
    return Markup('<polygon class="band" points="{}"/>').format(places)
