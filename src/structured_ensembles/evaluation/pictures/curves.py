"""Learning curves and reliability diagrams as PNG files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, product
from pathlib import Path

from matplotlib.figure import Figure

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.metrics import Reliability
from structured_ensembles.evaluation.pictures.drawing import COLOURS, finish, in_percent, in_whole_numbers, label_axes

_DASHES = ("-", "--", ":", "-.")


def learning_curves(histories: Mapping[str, Sequence[Mapping[str, float]]], path: str | Path) -> None:
    """Draw accuracy and loss on the held-out examples by epoch, one line per member.

    Args:
        histories: By member's name, one row per epoch with at least the keys epoch, held_out_accuracy (0 to 1) and
            held_out_loss (nats).
        path: The PNG file to write; one that exists is replaced, whole.

    Raises:
        DataError: There is no history, or one without a row.
    """
    empty = [name for name, history in histories.items() if not history]
    if empty or not histories:
        raise DataError(f"no epoch to draw for {', '.join(empty) or 'any member'}: pass one row per epoch")
    figure = Figure(figsize=(9, 4), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    for (name, history), style in zip(histories.items(), _styles(), strict=False):
        epochs = [row["epoch"] for row in history]
        style |= {"marker": "o" if len(history) == 1 else ""}  # a line through one point would not be seen
        accuracy.plot(epochs, [row["held_out_accuracy"] for row in history], label=name, **style)
        loss.plot(epochs, [row["held_out_loss"] for row in history], **style)
    label_axes(accuracy, "Accuracy", "epoch", "held-out accuracy (%)")
    label_axes(loss, "Loss", "epoch", "held-out cross-entropy (nats)")
    in_percent(accuracy.yaxis)
    in_whole_numbers(accuracy.xaxis, loss.xaxis)
    finish(figure, Path(path))


def reliability_diagram(curves: Mapping[str, Reliability], path: str | Path) -> None:
    """Draw accuracy against confidence, one line per predictor, above how many examples each bin holds.

    Args:
        curves: By predictor's name, its reliability; the numbers of bins may differ.
        path: The PNG file to write; one that exists is replaced, whole.

    Raises:
        DataError: There is no curve.
    """
    if not curves:
        raise DataError("no reliability to draw: pass at least one predictor's")
    figure = Figure(figsize=(6, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfectly calibrated")
    for (name, curve), style in zip(curves.items(), _styles(), strict=False):
        filled = [i for i, count in enumerate(curve.count) if count]
        points = [curve.confidence[i] for i in filled], [curve.accuracy[i] for i in filled]
        above.plot(*points, label=f"{name} (ECE {curve.ece:.3f})", clip_on=False, **style)
        edges = [i / len(curve.count) for i in range(len(curve.count) + 1)]
        below.stairs(curve.count, edges, color=style["color"], linestyle=style["linestyle"], linewidth=1.5)
    label_axes(above, "", "", "accuracy (%)")
    label_axes(below, "", "confidence (%)", "examples per bin")
    below.set_yscale("log")
    below.set_ylim(bottom=0.7)
    below.yaxis.set_major_formatter("{x:g}")
    in_percent(above.yaxis, below.xaxis)
    above.set(xlim=(0, 1), ylim=(0, 1))
    finish(figure, Path(path), loc="outside upper left", ncols=2)


def _styles() -> Iterator[dict[str, str | float]]:
    """Line styles without end: all colours as full lines, then dashed, dotted ..."""
    for dash, colour in cycle(product(_DASHES, COLOURS)):
        yield {"color": colour, "linestyle": dash, "linewidth": 1.5, "marker": "o", "markersize": 4}
