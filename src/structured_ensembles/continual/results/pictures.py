"""A stream of tasks as PNG files: how well it is learned, what it takes, and who owns which channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, PercentFormatter

from structured_ensembles.continual.results import curves
from structured_ensembles.continual.results.curves import Curve, Results
from structured_ensembles.continual.results.records import StreamRun
from structured_ensembles.continual.streams.protocol import StreamResult
from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.pictures.drawing import (
    COLOURS,
    finish,
    in_percent,
    in_whole_numbers,
    label_axes,
    save_whole,
)
from structured_ensembles.evaluation.text import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHAPES = "os^DvPX*"
"""One more than there are colours: two lines of one colour have different shapes."""
_DASHES = ("-", "--", ":")
_FREE = "0.92"
_LEGIBLE = 12
"""The largest number of tasks whose accuracies are written into the heat map."""
_NUMBER: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}


def draw(runs: Sequence[StreamRun], folder: Path) -> list[Path]:
    """Draw everything that there is something to show of.

    Args:
        runs: Of one stream; those that failed are in no picture.
        folder: Where the PNG files go; it is made if it is missing, and pictures in it are replaced, each whole.

    Returns:
        The files, in the order in which they are best looked at.

    Raises:
        DataError: There is no result, a stream is not finished, or the streams differ.
    """
    results, owners = curves.by_strategy(runs), curves.owners(runs)
    curves.check(results)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"accuracy.png": accuracy_over_stream, "matrix.png": accuracy_matrix, "memory.png": memory_over_stream}
    if any(curves.capacity(runs) for runs in results.values()):
        drawn["capacity.png"] = capacity_left
    for name, picture in drawn.items():
        picture(results, folder / name)
    if owners:
        channel_owners(owners, folder / "owners.png")
    return [folder / name for name in (*drawn, *(["owners.png"] if owners else []))]


def accuracy_over_stream(results: Results, path: str | Path) -> None:
    """Draw the mean accuracy over the tasks so far, a line per strategy; bars are one standard deviation over seeds.

    Args:
        results: By strategy, one result for each seed.
        path: The PNG file to write; one that exists is replaced, whole.
    """
    figure, axes = _stage(results, "accuracy, mean over the tasks so far (%)")
    _lines(axes, results, curves.accuracy)
    in_percent(axes.yaxis)
    finish(figure, Path(path))


def memory_over_stream(results: Results, path: str | Path) -> None:
    """Draw the bytes that answering for the tasks so far needs, a line per strategy.

    That of separate networks is drawn straight through, for comparison. Images kept to learn from are left out. The
    arguments are those of `accuracy_over_stream`.
    """
    figure, axes = _stage(results, "bytes needed to answer for the tasks so far")
    if curves.SEPARATE in results:
        means = [one.mean for one in curves.memory(results[curves.SEPARATE])]
        axes.fill_between(range(1, len(means) + 1), means, color="0.95", zorder=0, label="below separate networks")
    _lines(axes, results, curves.memory)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
    finish(figure, Path(path))


def accuracy_matrix(results: Results, path: str | Path) -> None:
    """Draw the accuracy on every task after every task, mean over the seeds, a heat map per strategy.

    All maps have one scale. The arguments are those of `accuracy_over_stream`.
    """
    maps = {name: curves.matrix(runs) for name, runs in results.items()}
    known = [value for rows in maps.values() for row in rows for value in row if value is not None]
    limits = (min(known), max(*known, min(known) + 0.01))
    panels = _panels(list(maps), side=1.6 + 0.28 * len(next(iter(maps.values()))))
    for axes, rows in zip(panels.axes, maps.values(), strict=True):
        _heat(axes, rows, limits, "task answered", "tasks learned")
    _finish_heat(panels, "accuracy (%)", Path(path))


def capacity_left(results: Results, path: str | Path) -> None:
    """Draw the share of every layer that no task has taken, after every task, a heat map per strategy that takes any.

    The arguments are those of `accuracy_over_stream`.

    Raises:
        DataError: No strategy takes anything.
    """
    left = {name: found for name, runs in results.items() if (found := curves.capacity(runs))}
    if not left:
        raise DataError("no strategy takes channels or weights: there is no capacity to draw")
    layers, tasks = max(map(len, left.values())), len(next(iter(next(iter(left.values())).values())))
    panels = _panels(list(left), side=1.8 + 0.28 * max(layers, tasks))
    for axes, found in zip(panels.axes, left.values(), strict=True):
        _heat(axes, list(found.values()), (0.0, 1.0), "tasks learned", "")
        axes.set_yticks(range(len(found)), [curves.short(layer) for layer in found], fontsize=8)
    _finish_heat(panels, "left (%)", Path(path))


def channel_owners(owners: Mapping[str, Sequence[int]], path: str | Path) -> None:
    """Draw who owns which channels: a strip per layer, in the order of its channels, a colour per task.

    Args:
        owners: By layer, which task owns each channel, -1 where none does.
        path: The PNG file to write; one that exists is replaced, whole.

    Raises:
        DataError: There is no channel.
    """
    if not any(len(strip) for strip in owners.values()):
        raise DataError("no channel to draw: pass the owners of one layer at least")
    tasks = max(max(strip, default=-1) for strip in owners.values()) + 1
    figure = Figure(figsize=(9, 1.2 + 0.42 * len(owners)), layout="constrained")
    axes = figure.subplots()
    for place, strip in enumerate(owners.values()):
        for owner in sorted(set(strip)):
            spans = [(i / len(strip), 1 / len(strip)) for i, one in enumerate(strip) if one == owner]
            axes.broken_barh(spans, (place - 0.38, 0.76), **_owner_style(owner))
    axes.set_yticks(range(len(owners)), [f"{curves.short(name)} ({len(strip)})" for name, strip in owners.items()])
    axes.set(xlim=(0, 1), ylim=(len(owners) - 0.5, -0.5), xticks=[], xlabel="channels, in their order")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    named = [(owner, f"task {owner + 1}" if owner >= 0 else "free") for owner in (*range(tasks), -1)]
    handles = [Patch(label=name, **_owner_style(owner)) for owner, name in named]
    finish(figure, Path(path), handles=handles)


def _owner_style(owner: int) -> dict[str, Any]:
    """The colours come again in stripes."""
    if owner < 0:
        return {"facecolor": _FREE, "edgecolor": "white", "linewidth": 0.3}
    colour = COLOURS[owner % len(COLOURS)]
    if owner < len(COLOURS):
        return {"facecolor": colour, "edgecolor": "white", "linewidth": 0.3}
    pale = tuple(0.45 * part + 0.55 for part in to_rgb(colour))
    return {"facecolor": pale, "edgecolor": colour, "hatch": "////", "linewidth": 0.3}


def _stage(results: Results, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, max(4.2, 1 + 0.25 * len(results))), layout="constrained")
    axes = figure.subplots()
    label_axes(axes, "", "tasks learned", title)
    in_whole_numbers(axes.xaxis)
    return figure, axes


def _lines(axes: Axes, results: Results, measured: Callable[[Sequence[StreamResult]], Curve]) -> None:
    """Drawn a little beside each other, so that bars do not hide each other; the subject on top."""
    first = curves.subject(results)
    looks = zip(results.items(), cycle(_SHAPES), cycle(COLOURS), strict=False)
    for number, ((name, runs), shape, colour) in enumerate(looks):
        curve = measured(runs)
        aside = 0.02 * (number - (len(results) - 1) / 2)
        axes.errorbar(
            [i + 1 + aside for i in range(len(curve))],
            [one.mean for one in curve],
            [one.deviation or 0.0 for one in curve],
            label=name,
            color=colour,
            marker=shape,
            linestyle=_DASHES[number // len(COLOURS) % len(_DASHES)],
            linewidth=2.5 if name == first else 1.2,
            markersize=6 if name == first else 4,
            elinewidth=1,
            zorder=3 if name == first else 2,
        )


def _panels(names: Sequence[str], side: float) -> Figure:
    """A grid with a square for each name."""
    columns = min(4, len(names))
    rows = ceil(len(names) / columns)
    figure = Figure(figsize=(1 + side * columns, 0.4 + side * rows), layout="constrained")
    for axes, name in zip(figure.subplots(rows, columns, squeeze=False).flat, [*names, *[None] * 3], strict=False):
        if name is None:
            figure.delaxes(axes)
        else:
            axes.set_title(name, fontsize=10)
    return figure


def _heat(axes: Axes, rows: Sequence[Sequence[float | None]], limits: tuple[float, float], x: str, y: str) -> None:
    """A square for each number, empty where there is none; numbers are written in, where they can be read.

    Columns and rows are counted from 1.
    """
    values = [[float("nan") if value is None else value for value in row] for row in rows]
    axes.imshow(values, cmap="cividis", vmin=limits[0], vmax=limits[1], aspect="auto")
    for i, row in enumerate(rows if max(len(rows), len(rows[0])) <= _LEGIBLE else ()):
        for j, value in enumerate(row):
            if value is not None:
                dark = (value - limits[0]) / (limits[1] - limits[0]) < 0.5
                axes.text(j, i, f"{100 * value:.0f}", color="white" if dark else "black", **_NUMBER)
    label_axes(axes, axes.get_title(), x, y)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        in_whole_numbers(axis)
        axis.set_major_formatter(lambda value, _: f"{value + 1:.0f}")


def _finish_heat(figure: Figure, title: str, path: Path) -> None:
    """Say what the colours of all panels mean, and save the picture."""
    panels = list(figure.axes)
    bar = figure.colorbar(panels[0].images[0], ax=panels, shrink=0.6, format=PercentFormatter(xmax=1, symbol=""))
    bar.set_label(title)
    bar.outline.set_visible(False)
    save_whole(figure, path)
