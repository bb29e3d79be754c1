"""`structens inspect`: what is in an artefact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from structured_ensembles.cli.printing import data_json, head, say, table
from structured_ensembles.cli.verb import Verb, plugin_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_COLUMNS = 8
_COSTS = {"parameters": "parameters", "bytes_on_disk": "bytes on disk", "flops": "FLOPs per image"}

_EXAMPLES = """
structens inspect runs/demo/structured.safetensors
"""


@click.command(cls=Verb, examples=_EXAMPLES)
@click.argument("artefact", type=click.Path(path_type=Path))
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all members.")
def inspect(artefact: Path, *, as_json: bool) -> None:
    """Show what is in an ARTEFACT: its architecture, its members, what they share and what they cost.

    The WIDTH of a layer is the number of channels that a member keeps of it. The OVERLAP of two members is the share of
    channels that both keep among those that either keeps, averaged over the layers: 1 if they are cut alike, 0 if they
    have nothing in common.
    """
    found = described(artefact)
    if as_json:
        data_json(found)
    else:
        _print(found)


def described(path: Path) -> dict[str, Any]:
    """Everything that `inspect` shows, as JSON.

    Raises:
        ArtefactError: The file is not an artefact, damaged, or of an architecture that is not known by name.
    """
    from structured_ensembles.evaluation.blocks.structure import by_chance, overlaps, widths
    from structured_ensembles.evaluation.cost import as_json, untrained
    from structured_ensembles.prediction.ensemble import Ensemble

    ensemble = Ensemble.load(path)
    record = ensemble.record
    network = record.network
    return {
        "file": str(path),
        "method": record.method,
        "members": record.members,
        "architecture": network and network.name,
        "arguments": dict(network.arguments) if network else {},
        "input_shape": list(record.input_shape),
        "classes": list(record.classes),
        "combine": str(record.combine),
        "widths": widths(record),
        "overlap": overlaps(record),
        "overlap_by_chance": by_chance(record),
        "cost": as_json(ensemble.size()),
        "whole_network": as_json(untrained(network, record.classes).size()) if network else None,
        "summary": dict(record.summary),
    }


def _print(found: Mapping[str, Any]) -> None:
    from structured_ensembles.evaluation.entry import title

    arguments = ", ".join(f"{name}={value}" for name, value in found["arguments"].items())
    architecture = f"{found['architecture']}{f' ({arguments})' if arguments else ''}"
    shape = "x".join(str(side) for side in found["input_shape"])
    say(f"{found['file']}: {title(found['method'], found['members'])}, made of {architecture}.")
    say(f"It takes images of {shape} (channels, height, width). Its {len(found['classes'])} classes: {_some(found)}.")
    head("Cost")
    table(("", *_COSTS.values()), _costs(found))
    if found["widths"]:
        head("Width of each layer")
        table(*_width_table(found["widths"]))
    if found["overlap"]:
        head("Overlap of each pair of members: channels that both keep / channels that either keeps")
        _print_overlaps(found)
    head("Training")
    table(("member", "best epoch", "accuracy on held-out images"), _training(found["summary"]))
    _print_summary(found["summary"])


def _some(found: Mapping[str, Any]) -> str:
    classes = found["classes"]
    return ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")


def _costs(found: Mapping[str, Any]) -> list[list[str]]:
    rows = [("this ensemble", found["cost"])]
    if found["whole_network"]:
        rows.append(("one whole network", found["whole_network"]))
    lines = [[name, *(f"{cost[key]:,}" for key in _COSTS)] for name, cost in rows]
    if found["whole_network"]:
        lines.append(["ratio", *(f"{found['cost'][key] / max(1, found['whole_network'][key]):.2f}x" for key in _COSTS)])
    return lines


def _width_table(widths: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """One column a member, or the smallest, the mean and the largest width of many."""
    members = len(next(iter(widths.values()))["members"])
    if members <= _COLUMNS:
        heads = [f"member {m + 1}" for m in range(members)]
        cells = {name: [str(width) for width in layer["members"]] for name, layer in widths.items()}
    else:
        heads = ["smallest", "mean", "largest"]
        cells = {name: _summary(layer["members"]) for name, layer in widths.items()}
    lines = [[name, str(widths[name]["whole"]), *row] for name, row in cells.items()]
    return ["layer", "whole", *heads], lines


def _summary(values: Sequence[int]) -> list[str]:
    return [str(min(values)), f"{sum(values) / len(values):.1f}", str(max(values))]


def _print_overlaps(found: Mapping[str, Any]) -> None:
    members, pairs = found["members"], found["overlap"]
    if members <= _COLUMNS:
        heads = ["", *(f"member {a}" for a in range(1, members))]
        lines = [
            [f"member {b}", *(f"{pairs[f'{a},{b}']:.2f}" for a in range(1, b)), *[""] * (members - b)]
            for b in range(2, members + 1)
        ]
        table(heads, lines)
    values = list(pairs.values())
    say(
        f"On average {sum(values) / len(values):.2f}, from {min(values):.2f} to {max(values):.2f}; "
        f"members of these widths that were cut at random would share {found['overlap_by_chance']:.2f}."
    )


def _training(summary: Mapping[str, Any]) -> list[list[str]]:
    epochs, accuracies = summary.get("best_epochs") or [], summary.get("held_out_accuracies") or []
    pairs = zip(epochs, accuracies, strict=False)
    return [[str(m), str(epoch), f"{accuracy:.2%}"] for m, (epoch, accuracy) in enumerate(pairs, 1)]


def _print_summary(summary: Mapping[str, Any]) -> None:
    threshold, test = summary.get("rejection_threshold"), summary.get("test")
    say()
    say(f"Seed {summary.get('seed')}.")
    if test:
        say(
            f"On the {test['examples']:,} test images of {summary['data']}: accuracy {test['accuracy']:.2%}, "
            f"NLL {test['nll']:.3f}."
        )
    say(
        "It never abstains."
        if threshold is None
        else f"It abstains above a predictive entropy of {threshold:.3g} nats."
    )
