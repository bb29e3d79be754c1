"""What the members keep of each layer, as a PNG file."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.blocks.structure import Structure
from structured_ensembles.evaluation.pictures.drawing import COLOURS, finish, label_axes

_MARKERS = "os^DvPX"
_BAR = 0.8
"""Of a layer, which has the width 1."""


def widths_picture(structure: Structure, path: str | Path) -> None:
    """Draw how many channels each member keeps, layer by layer, before bars with the width of the whole network.

    Args:
        structure: Of members that were cut out of a network.
        path: The PNG file to write; one that exists is replaced, whole.

    Raises:
        DataError: The members were not cut out of a network.
    """
    layers = structure.layers
    if not layers:
        raise DataError("there are no widths to draw: the members were not cut out of a wider network")
    figure = Figure(figsize=(min(max(5, 2 + 0.35 * len(layers)), 16), 4.5), layout="constrained")
    axes = figure.subplots()
    places = range(len(layers))
    axes.bar(places, [layer.base for layer in layers], _BAR, color="0.88", label="whole network")
    members = len(structure.agreement)
    for member in range(members):
        # side by side: members of equal width would hide each other
        beside = [place + _BAR * ((member + 0.5) / members - 0.5) for place in places]
        look = COLOURS[member % len(COLOURS)], _MARKERS[member % len(_MARKERS)]
        kept = [layer.widths[member] for layer in layers]
        name = f"member {member + 1}"
        axes.plot(beside, kept, color=look[0], marker=look[1], linewidth=0.8, markersize=4, label=name)
    label_axes(axes, "", "layer", "channels kept")
    axes.set_xticks(places, [layer.layer for layer in layers], rotation=90, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    finish(figure, Path(path), loc="outside upper left", ncols=4)
