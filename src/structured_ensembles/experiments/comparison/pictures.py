"""What methods reach for what they cost, as PNG files: a colour and a shape per method, the same in every picture.

Each point is an arm's mean over its seeds, its bars one sample standard deviation; faint lines join a method's budgets.
With several numbers of members each has its own panels; the single network is in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil, exp, floor, inf, log, log10, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.pictures.drawing import COLOURS, finish, in_percent, label_axes
from structured_ensembles.evaluation.statistics import Summary, grouped
from structured_ensembles.evaluation.text import counted, scaled
from structured_ensembles.experiments.comparison.records import Arm, Result, sections, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STARS = ("*", (4, 1, 0), (6, 1, 0), (3, 1, 0))
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p", "h", "d", *_STARS[1:])
_FRONT: dict[str, Any] = {"color": "0.35", "linewidth": 1.3, "linestyle": "--", "zorder": 1}
_POINT: dict[str, Any] = {"markeredgewidth": 1.3, "linestyle": "none"}
_ALIKE = 1.05
"""Costs within this factor of the next smaller one are drawn side by side."""
_BESIDE = f" (less than {_ALIKE - 1:.0%} apart: side by side)"


@dataclass(frozen=True)
class _Axis:
    """One value and how its axis looks: a share in per cent, a cost on a logarithmic scale, or neither."""

    value: str
    label: str
    share: bool = False
    cost: bool = False


@dataclass(frozen=True)
class _Panel:
    """Two values against each other, and whether more of the second is better."""

    x: _Axis
    y: _Axis
    higher: bool = True


_MOST_TICKS = 6
"""On a logarithmic axis."""

_ACCURACY = _Axis("accuracy", "accuracy (%)", share=True)
_BYTES = _Axis("bytes_on_disk", f"bytes on disk{_BESIDE}", cost=True)
_TRAINING = _Axis("training_flops", f"FLOPs of training{_BESIDE}", cost=True)
_DISAGREEMENT = _Axis("disagreement", "pairs of members that disagree (%)", share=True)

_Points: TypeAlias = "dict[str, list[tuple[float, float, Summary[Arm]]]]"
"""By method, where each of its arms is drawn."""


def cost_front(results: Sequence[Result], path: str | Path) -> None:
    """Draw accuracy, NLL and ECE against bytes on disk, with the Pareto front of the means as a stepped line.

    An arm is on the front if no other has as few bytes and as good a mean. Arms of about the same cost are drawn side
    by side, in the order of their costs, instead of on top of each other.

    Args:
        results: Every run once.
        path: The PNG file to write; one that exists is replaced, whole.

    Raises:
        DataError: No finished run has the values, or a cell occurs twice.
        SettingsError: A budget cannot be read.
    """
    others = [
        _Panel(_BYTES, _Axis("nll", "NLL (nats)"), higher=False),
        _Panel(_BYTES, _Axis("ece", "ECE"), higher=False),
    ]
    _draw(results, [_Panel(_BYTES, _ACCURACY), *others], Path(path))


def training_cost(results: Sequence[Result], path: str | Path) -> None:
    """Draw accuracy against the FLOPs of training; the rest as `cost_front`."""
    _draw(results, [_Panel(_TRAINING, _ACCURACY)], Path(path))


def diversity(results: Sequence[Result], path: str | Path) -> None:
    """Draw accuracy against the share of pairs that disagree, without what has one member and so no pair.

    Arguments and errors are those of `cost_front`.
    """
    _draw(results, [_Panel(_DISAGREEMENT, _ACCURACY)], Path(path))


def pareto(points: Sequence[tuple[float, float]], *, higher: bool) -> list[tuple[float, float]]:
    """The points that no other beats, by rising cost: whoever is as cheap is worse, whoever is as good costs more.

    Args:
        points: A cost, of which less is better, and a quality.
        higher: Whether more of the quality is better, or less.
    """
    sign = -1 if higher else 1
    front: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not front or sign * quality < sign * front[-1][1]:
            front.append((cost, quality))
    return front


def _draw(results: Sequence[Result], panels: Sequence[_Panel], path: Path) -> None:
    """A row of panels per number of members; where there is one panel each, all are in one row."""
    titled = [(members, rows, panel) for members, rows in sections(summarise(results)).items() for panel in panels]
    points = [_placed(rows, panel) for _, rows, panel in titled]
    drawn = {method for placed in points for method in placed}
    if not drawn:
        names = " or ".join(f"{panel.x.value} and {panel.y.value}" for panel in panels)
        raise DataError(f"nothing to draw: no finished run has {names}")
    methods = dict.fromkeys(result.cell.method for result in results)
    styles = dict(zip(methods, cycle(_styles()), strict=False))
    columns = len(panels) if len(panels) > 1 else len(titled)
    rows = len(titled) // columns
    figure = Figure(figsize=(2 + 4.6 * columns, max(4.6 * rows, 1 + 0.25 * len(drawn))), layout="constrained")
    for axes, (members, _, panel), placed in zip(
        figure.subplots(rows, columns, squeeze=False).flat, titled, points, strict=True
    ):
        label_axes(axes, counted(members, "member"), panel.x.label, panel.y.label)
        _fill(axes, placed, panel, styles)
        _scale(axes, panel)
        if panel.x.cost:
            _draw_front(axes, placed, panel)
    handles = [Line2D([], [], label=method, **style) for method, style in styles.items() if method in drawn]
    front = [Line2D([], [], label="Pareto front", **_FRONT)] if panels[0].x.cost else []
    finish(figure, path, handles=handles + front)


def _placed(summaries: Sequence[Summary[Arm]], panel: _Panel) -> _Points:
    """Where the arms go that have both values; a cost of zero has no place on a logarithmic axis."""
    known = [one for one in summaries if panel.x.value in one.values and panel.y.value in one.values]
    if panel.x.cost:
        known = [one for one in known if _mean(one, panel.x) > 0]
        places = apart([_mean(one, panel.x) for one in known])
    else:
        known = [one for one in known if one.arm.members > 1]
        places = [_mean(one, panel.x) for one in known]
    return grouped(
        (one.arm.method, (place, _mean(one, panel.y), one)) for place, one in zip(places, known, strict=True)
    )


def _mean(summary: Summary[Arm], axis: _Axis) -> float:
    return summary.values[axis.value].mean


def _deviation(summary: Summary[Arm], axis: _Axis) -> float:
    return summary.values[axis.value].deviation or 0.0


def apart(costs: Sequence[float]) -> list[float]:
    """Where costs are drawn so that about equal ones are side by side: their order stays, also among clusters.

    Args:
        costs: Above zero, in any order.

    Returns:
        A place for each, in the same order.
    """
    order = sorted(range(len(costs)), key=lambda i: costs[i])
    clusters: list[list[int]] = []
    for i in order:
        if clusters and costs[i] <= _ALIKE * costs[clusters[-1][-1]]:
            clusters[-1].append(i)
        else:
            clusters.append([i])
    logs = [log(cost) for cost in costs]
    middles = [(logs[cluster[0]] + logs[cluster[-1]]) / 2 for cluster in clusters]
    step = 0.018 * max(middles[-1] - middles[0], log(4)) if clusters else 0.0
    places = list(costs)
    for cluster, middle in zip(clusters, middles, strict=True):
        nearest = min((abs(other - middle) for other in middles if other != middle), default=inf)
        each = min(step, 0.8 * nearest / len(cluster))
        for rank, i in enumerate(cluster if len(cluster) > 1 else []):
            places[i] = exp(middle + (rank - (len(cluster) - 1) / 2) * each)
    return places


def _fill(axes: Axes, placed: _Points, panel: _Panel, styles: Mapping[str, Mapping[str, Any]]) -> None:
    for method, points in placed.items():
        x, y, arms = zip(*points, strict=True)
        style = styles[method]
        axes.plot(x, y, color=style["color"], linewidth=1, alpha=0.25)
        across = None if panel.x.cost else [_deviation(one, panel.x) for one in arms]
        bars = {"fmt": "none", "ecolor": style["color"], "elinewidth": 1, "alpha": 0.6}
        axes.errorbar(x, y, [_deviation(one, panel.y) for one in arms], across, **bars)
        axes.plot(x, y, **style)


def _draw_front(axes: Axes, placed: _Points, panel: _Panel) -> None:
    """Stepped, and on to the right edge: whoever may spend more need not take less."""
    where = {(_mean(one, panel.x), y): x for points in placed.values() for x, y, one in points}
    front = [(where[point], point[1]) for point in pareto(list(where), higher=panel.higher)]
    if front:
        edge = axes.get_xlim()
        x, y = zip(*front, (edge[1], front[-1][1]), strict=True)
        axes.step(x, y, where="post", **_FRONT)
        axes.set_xlim(edge)


def _scale(axes: Axes, panel: _Panel) -> None:
    for axis, drawn in ((panel.x, axes.xaxis), (panel.y, axes.yaxis)):
        if axis.share:
            in_percent(drawn)
    if panel.x.cost:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        middle, half = sqrt(low * high), max(2.0, sqrt(high / low))  # a factor of four holds several ticks
        axes.set_xlim(middle / half, middle * half)
        axes.xaxis.set_major_locator(FixedLocator(_ticks(middle / half, middle * half)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "".join(scaled(value))))
        axes.xaxis.set_minor_locator(NullLocator())


def _ticks(low: float, high: float) -> list[float]:
    """The finest of a few divisions of every power of ten that has few enough ticks between the limits to be read."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    divided = [
        [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        for digits in ((1, 1.5, 2, 3, 4, 6, 8), (1, 2, 5), (1,))
    ]
    return next((ticks for ticks in divided if len(ticks) <= _MOST_TICKS), divided[-1])


def _styles() -> list[dict[str, Any]]:
    """Every shape once; the colours come again in hollow shapes, then in grey ones with a coloured edge."""
    faces = (None, "white", "0.6")
    return [
        {
            **_POINT,
            "marker": shape,
            "color": colour,
            "markerfacecolor": faces[i // len(COLOURS)] or colour,
            "markersize": 10 if shape in _STARS else 7,  # a star fills less of its circle
        }
        for i, (shape, colour) in enumerate(zip(_SHAPES, cycle(COLOURS), strict=False))
    ]
