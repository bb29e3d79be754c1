"""The charts of the report: a block of the evaluation in, an SVG with a text alternative out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from structured_ensembles.evaluation.report import _svg
from structured_ensembles.evaluation.report._svg import Axis, Chart, Frame
from structured_ensembles.evaluation.report.words import Json, number, percent, points, share_of_100, short, size, whole

_NARROW = 300
"""Width of the bars, three of which stand side by side."""


def reliability(calibration: Json) -> Chart:
    """Accuracy by confidence above how many answers had it (on a logarithmic scale: the last bin holds most)."""
    curve = calibration["reliability"]
    counts: Sequence[int] = curve["count"]
    filled = [i for i, count in enumerate(counts) if count]
    spots = [(curve["confidence"][i], curve["accuracy"][i]) for i in filled]
    gap = max((abs(sure - right) for sure, right in spots), default=0.0)
    alt = (
        f"Accuracy by confidence. The typical gap between the two is {points(calibration['uncalibrated']['ece'])}, "
        f"the largest in one bin {points(gap)}; {percent(counts[-1] / max(sum(counts), 1))} of the answers have a "
        f"confidence above {percent(1 - 1 / len(counts), 0)}."
    )
    above = Frame(Axis("", 0, 1, ()), Axis("right among them", 0, 1, _shares()), bottom=200)
    ideal = _svg.rule((above.left, above.bottom), (above.right, above.top), "ideal")
    marks = [_gap(above, spot, counts[i] / max(counts)) for spot, i in zip(spots, filled, strict=True)]
    legend = (("line", "ideal", "perfectly calibrated"), ("line", "gap", "gap; the larger the dot, the more answers"))
    return Chart(_svg.picture(alt, 336, [*_svg.axes(above), ideal, *marks, *_counts(counts)]), alt, legend)


def _gap(frame: Frame, spot: tuple[float, float], share: float) -> Markup:
    """From the diagonal to a dot whose area says how many answers there are."""
    x, ideal, found = frame.across(spot[0]), frame.up(spot[0]), frame.up(spot[1])
    return _svg.rule((x, ideal), (x, found), "gap") + _svg.dot(x, found, "d0", round(2 + 4 * math.sqrt(share), 1))


def _counts(counts: Sequence[int]) -> list[Markup]:
    """How many answers each bin holds: the lower half of the reliability diagram."""
    decades = math.ceil(math.log10(max(*counts, 10)))
    ticks = [(power, short(10**power)) for power in range(0, decades + 1, max(1, decades // 2))]
    frame = Frame(Axis("confidence", 0, 1, _shares()), Axis("answers", -0.3, decades, ticks), top=252, bottom=300)
    wide = (frame.right - frame.left) / len(counts)
    heights = [math.log10(count) if count else -1.0 for count in counts]
    bars = [
        _svg.bar(frame.left + i * wide + 1, frame.up(height), wide - 2, frame.bottom - frame.up(height), "context")
        for i, height in enumerate(heights)
    ]
    return [*_svg.axes(frame), *bars]


def doubt(uncertainty: Json) -> Chart:
    """Histogram of the predictive entropy of right and of wrong answers."""
    alt = (
        f"How much it doubts: right answers have a mean entropy of {number(uncertainty['entropy_right'])} nats, "
        f"wrong ones of {number(uncertainty['entropy_wrong'])} nats."
    )
    shape = uncertainty["histogram"]
    return _histogram(alt, shape["edges"], ("right answers", shape["right"]), ("wrong answers", shape["wrong"]))


def unfamiliar(one: Json) -> Chart:
    """Histogram of the predictive entropy of familiar and of unfamiliar images."""
    auroc = one["scores"].get("entropy", {}).get("auroc")
    alt = (
        f"How much it doubts {one['name']}: an unfamiliar image has the higher entropy in "
        f"{share_of_100(auroc)} comparisons with a familiar one."
    )
    shape = one["histogram"]
    return _histogram(alt, shape["edges"], ("familiar images", shape["inside"]), (one["name"], shape["outside"]))


def _histogram(
    alt: str, edges: Sequence[float], context: tuple[str, Sequence[int]], subject: tuple[str, Sequence[int]]
) -> Chart:
    """Two histograms, each as shares of its own total: many right answers do not hide the few wrong ones."""
    groups = [[count / max(sum(counts), 1) for count in counts] for _, counts in (context, subject)]
    across = Axis("predictive entropy, nats", edges[0], edges[-1], [(v, f"{v:g}") for v in _inside(edges[-1])])
    frame = Frame(across, _percents("share of each group", max(map(max, groups))))
    drawn = [_svg.steps(frame, edges, group, kind) for group, kind in zip(groups, ("context", "subject"), strict=True)]
    legend = [
        ("area", kind, f"{name} ({whole(sum(counts))})")
        for kind, (name, counts) in zip(("context", "subject"), (context, subject), strict=True)
    ]
    return _svg.chart(alt, frame, drawn, legend)


def risk_coverage(selective: Json) -> Chart:
    """Share of wrong answers among those given, by how many are given; the script moves the marker ``here``."""
    curve = selective["curve"]
    spots = sorted(zip(curve["coverage"], curve["risk"], strict=True))
    last = spots[-1][1]
    half = min(spots, key=lambda spot: abs(spot[0] - 0.5))
    alt = (
        f"Wrong answers by how many it gives: {percent(last)} of all answers are wrong, and {percent(half[1])} of the "
        f"{percent(half[0], 0)} it doubts least."
    )
    frame = Frame(Axis("answers given", 0, 1, _shares()), _percents("wrong among them", max(risk for _, risk in spots)))
    chance = _svg.rule((frame.left, frame.up(last)), (frame.right, frame.up(last)), "ideal")
    legend = (("line", "s0", "declining what it doubts most"), ("line", "ideal", "declining at random"))
    return _svg.chart(alt, frame, [chance, _svg.line(frame, spots, 0), _svg.marker(frame, 1, last)], legend)


def attacks(adversarial: Json, clean: float | None) -> Chart:
    """Accuracy by the strength of the attack, evenly spaced: strengths differ by powers of ten."""
    strengths = sorted({row["epsilon"] for kind in ("fgsm", "pgd") for row in adversarial.get(kind) or ()})
    start = [(0.0, clean)] if clean is not None else []
    lines = {
        name: [*start, *((1.0 + strengths.index(row["epsilon"]), row["accuracy"]) for row in rows)]
        for name, rows in (
            ("one step (FGSM)", adversarial.get("fgsm")),
            ("several steps (PGD)", adversarial.get("pgd")),
        )
        if rows
    }
    ticks = [*(((0.0, "none"),) if start else ()), *((i + 1.0, f"{value:g}") for i, value in enumerate(strengths))]
    found = "; ".join(f"{name}: {percent(spots[-1][1])} at {strengths[-1]:g}" for name, spots in lines.items())
    return _lines(
        f"Accuracy under attack. {found}.", Axis("strength of the attack, ε", 0, len(strengths), ticks), lines
    )


def severities(corruptions: Json, clean: float | None) -> Chart:
    """Accuracy by severity of the damage: of all answers, and of those that it does not decline."""
    rows = corruptions["by_severity"]
    start = [(0.0, clean)] if clean is not None else []
    kept = [(row["severity"], row["accuracy_of_kept"]) for row in rows if row["accuracy_of_kept"] is not None]
    lines = {"all answers": [*start, *((row["severity"], row["accuracy"]) for row in rows)]}
    if kept and any(row["rejected_share"] is not None for row in rows):
        lines["answers it does not decline"] = kept
    ticks = [*(((0.0, "none"),) if start else ()), *((row["severity"], str(row["severity"])) for row in rows)]
    found = "; ".join(
        f"{name}: {percent(spots[-1][1])} at severity {rows[-1]['severity']}" for name, spots in lines.items()
    )
    return _lines(
        f"Accuracy on damaged images. {found}.", Axis("severity of the damage", 0, ticks[-1][0], ticks), lines
    )


def widths(layers: Sequence[Json]) -> Chart:
    """How much of every layer each member kept."""
    members = len(layers[0]["widths"])
    lines = {
        f"member {m + 1}": [(i + 1.0, layer["widths"][m] / layer["base"]) for i, layer in enumerate(layers)]
        for m in range(members)
    }
    shares = [share for spots in lines.values() for _, share in spots]
    alt = f"Channels kept by layer: from {percent(min(shares), 0)} to {percent(max(shares), 0)} of the base's."
    return _lines(alt, _svg.numbered("layer, from input to output", len(layers)), lines, "channels kept", dots=False)


def costs(cost: Json, key: str, form: Callable[[float], str] = size) -> Chart | None:
    """One kind of cost of the ensemble, one dense network and a deep ensemble as bars; None where it is not known."""
    names = {"ensemble": "this ensemble", "dense": "one dense network", "deep": "deep ensemble"}
    rows = [(name, cost[part][key]) for part, name in names.items() if cost[part] and cost[part][key] is not None]
    if len(rows) < 2:
        return None
    alt = "; ".join(f"{name}: {form(value)}" for name, value in rows) + "."
    most = max(value for _, value in rows) or 1
    bars = (_bar(24 + 44 * i, name, form(value), value / most, first=i == 0) for i, (name, value) in enumerate(rows))
    return Chart(_svg.picture(alt, 44 * len(rows) - 6, [part for bar in bars for part in bar], _NARROW), alt)


def _bar(top: float, name: str, value: str, share: float, *, first: bool) -> list[Markup]:
    """A bar as long as its share, under its name and value."""
    return [
        _svg.words(0, top - 8, name),
        _svg.words(_NARROW, top - 8, value, "end", "value"),
        _svg.bar(0, top, _NARROW, 9, "track"),
        _svg.bar(0, top, _NARROW * share, 9, "subject" if first else "context"),
    ]


def _lines(
    alt: str, axis: Axis, lines: dict[str, list[tuple[float, float]]], title: str = "accuracy", *, dots: bool = True
) -> Chart:
    """Shares from 0 to 1, one marked line for each name."""
    frame = Frame(axis, Axis(title, 0, 1, _shares()))
    drawn = [_svg.line(frame, spots, i, dots=dots) for i, spots in enumerate(lines.values())]
    legend = [("line", f"s{i % _svg.STYLES}", name) for i, name in enumerate(lines)]
    return _svg.chart(alt, frame, drawn, legend if len(lines) > 1 else ())


def _shares() -> list[tuple[float, str]]:
    return [(i / 4, f"{25 * i} %") for i in range(5)]


def _percents(title: str, highest: float) -> Axis:
    """An axis of shares that ends a little above the highest of them."""
    ticks = _svg.rounded(highest or 0.01)
    return Axis(title, 0, ticks[-1], [(value, f"{100 * value:.3g} %") for value in ticks])


def _inside(highest: float) -> list[float]:
    """Round values from 0 that are not above the highest."""
    return [value for value in _svg.rounded(highest) if value <= highest]
