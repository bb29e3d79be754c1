"""What all PNG files have in common: their colours, the look of their axes, and how they are saved.

Drawn without pyplot: no global state, safe in threads and without a display.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import MaxNLocator, PercentFormatter

from structured_ensembles.files.whole import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's colours, which colour-blind readers can tell apart; yellow is left out, too pale for a line."""
_DPI = 150


def label_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Name the axes and give them the look of all our pictures."""
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(visible=True, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def in_percent(*shares: Axis) -> None:
    """Write shares from 0 to 1 as per cent, without the sign: the label has it."""
    for axis in shares:
        axis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))


def in_whole_numbers(*counts: Axis) -> None:
    """Put ticks at whole numbers only."""
    for axis in counts:
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def finish(figure: Figure, path: Path, **legend: Any) -> None:  # noqa: ANN401 - as matplotlib takes them
    """Say beside the axes what is what, or as the arguments say, and save the picture."""
    figure.legend(**{"loc": "outside right upper", "frameon": False, **legend})
    save_whole(figure, path)


def save_whole(figure: Figure, path: Path) -> None:
    """Write the file when it is drawn: a reader never sees half a picture."""
    FigureCanvasAgg(figure)
    with whole(path) as partial:
        figure.savefig(partial, dpi=_DPI, format="png")
