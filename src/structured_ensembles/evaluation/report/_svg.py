"""The few SVG shapes that the charts are made of; colours come from the style sheet, by class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH = 400
"""Of every chart, in its own units: the page scales it, and letters stay readable on a phone."""
STYLES = 6
"""How many line styles the style sheet has, s0 to s5."""
_HEIGHT = 248
"""Of a chart with one frame."""


@dataclass(frozen=True)
class Chart:
    """A picture and the words around it.

    Attributes:
        svg: The picture; it carries ``alt``.
        alt: What it shows, for those who do not see it.
        legend: Shape ("line" or "area"), class and name of what is drawn; empty where one thing is.
    """

    svg: Markup
    alt: str
    legend: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Axis:
    """One direction of a frame: its title, the values at its ends, and the values that are written beside it."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Frame:
    """A rectangle of the picture in which values have a place."""

    x: Axis
    y: Axis
    top: float = 30
    bottom: float = 210
    left: float = 48
    right: float = WIDTH - 18

    def across(self, value: float) -> float:
        """Where a value of the x axis is."""
        return self.left + _share(self.x, value) * (self.right - self.left)

    def up(self, value: float) -> float:
        """Where a value of the y axis is; values beyond its ends stay at the ends."""
        return self.bottom - min(max(_share(self.y, value), 0), 1) * (self.bottom - self.top)


def _share(axis: Axis, value: float) -> float:
    return (value - axis.low) / (axis.high - axis.low)


def rounded(highest: float, intervals: int = 4) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, from 0 to the first that is not below ``highest``."""
    raw = max(highest, 1e-9) / intervals
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [i * step for i in range(math.ceil(highest / step - 1e-9) + 1 or 2)]


def picture(alt: str, height: float, parts: Iterable[Markup], width: float = WIDTH) -> Markup:
    """The whole chart; ``alt`` is read in its place."""
    head = Markup('<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}">').format(alt, width, height)
    return head + Markup("\n").join(parts) + Markup("</svg>")


def chart(alt: str, frame: Frame, parts: Iterable[Markup], legend: Iterable[tuple[str, str, str]] = ()) -> Chart:
    """Shapes in a frame with its axes."""
    return Chart(picture(alt, _HEIGHT, [*axes(frame), *parts]), alt, tuple(legend))


def numbered(title: str, count: int) -> Axis:
    """An axis of things that are numbered from 1; of many, some numbers are written."""
    ticks = [(i + 1.0, str(i + 1)) for i in range(0, count, math.ceil(count / 10))]
    return Axis(title, 1, max(count, 2), ticks)


def words(x: float, y: float, text: str, anchor: str = "start", kind: str = "tick") -> Markup:
    """A piece of text."""
    shape = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return shape.format(kind, x, y, anchor, text)


def rule(start: tuple[float, float], end: tuple[float, float], kind: str) -> Markup:
    """A straight line between two places."""
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, *start, *end)


def axes(frame: Frame) -> list[Markup]:
    """Grid lines and ticks; the title of the y axis stands above it, where nobody has to turn their head."""
    parts = [words(0, frame.top - 14, frame.y.title, kind="title")] if frame.y.title else []
    for value, label in frame.y.ticks:
        height = frame.up(value)
        parts.append(rule((frame.left, height), (frame.right, height), "grid"))
        parts.append(words(frame.left - 6, height + 4, label, "end"))
    for value, label in frame.x.ticks:
        parts.append(words(frame.across(value), frame.bottom + 16, label, "middle"))
    if frame.x.title:
        parts.append(words(frame.right, frame.bottom + 34, frame.x.title, "end", "title"))
    return parts


def line(frame: Frame, points: Sequence[tuple[float, float]], style: int, *, dots: bool = False) -> Markup:
    """A line through points, each marked if ``dots``."""
    places = [(frame.across(x), frame.up(y)) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawn = Markup('<polyline class="s{}" points="{}"/>').format(style % STYLES, path)
    return drawn + Markup("").join(dot(x, y, f"d{style % STYLES}") for x, y in places if dots)


def dot(x: float, y: float, kind: str, radius: float = 3) -> Markup:
    """A filled circle at a place."""
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(kind, x, y, radius)


def marker(frame: Frame, x: float, y: float) -> Markup:
    """A circle that a script can move: ``data-frame`` says where both axes start and end, and the y axis's end."""
    places = f"{frame.left} {frame.right} {frame.bottom} {frame.top} {frame.y.high}"
    shape = Markup('<circle class="here" data-frame="{}" cx="{:.1f}" cy="{:.1f}" r="6"/>')
    return shape.format(places, frame.across(x), frame.up(y))


def steps(frame: Frame, edges: Sequence[float], heights: Sequence[float], kind: str) -> Markup:
    """The outline of a histogram, filled down to the axis."""
    path = [f"M{frame.across(edges[0]):.1f},{frame.bottom:.1f}"]
    for i, height in enumerate(heights):
        path.append(f"V{frame.up(height):.1f}H{frame.across(edges[i + 1]):.1f}")
    return Markup('<path class="{}" d="{}V{:.1f}Z"/>').format(kind, "".join(path), frame.bottom)


def bar(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    """A rectangle."""
    shape = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    return shape.format(kind, x, y, max(width, 0), max(height, 0))
