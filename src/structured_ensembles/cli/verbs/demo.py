"""`structens demo`: the whole method on real images, each step explained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from structured_ensembles.cli.options import declared, options_of
from structured_ensembles.cli.printing import head, say
from structured_ensembles.cli.verb import Verb
from structured_ensembles.options.plans import Plan

if TYPE_CHECKING:
    from structured_ensembles.cli.session import Session
    from structured_ensembles.methods.fitting import Fittable

_EXAMPLES = """
structens demo --seed 1 --out runs/demo-seed-1
"""


@click.command(cls=Verb, examples=_EXAMPLES)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A new folder for the results. [default: runs/demo, runs/demo-2, ...]",
)
@declared(options_of(Plan)["seed"])
def demo(out: Path | None, seed: int | None) -> None:
    """Watch the whole method on handwritten digits, in a minute or two.

    Makes a structured ensemble of 4 MEMBERS, small networks cut out of a single one, within a BUDGET: the bytes of that
    one network. For comparison it also trains the one network on its own, and a deep ensemble of 4 whole networks.
    Every step says what it does and why. Needs no download.
    """
    from structured_ensembles.cli import configuration
    from structured_ensembles.cli.folder import check_new, fresh, reserved
    from structured_ensembles.cli.session import Session, report, resumable

    folder = out or fresh(Path("runs/demo"))
    check_new(folder)
    plan = configuration.plan({"against": ("single", "deep"), "seed": seed or 0})
    session = Session(plan)
    _introduce(session, folder)
    with reserved(folder, configuration.text(plan)), resumable(folder):
        metrics = session.work(folder, before=_before, after=_after)
    _explain_table()
    report(metrics, folder)


def _introduce(session: Session, folder: Path) -> None:
    from structured_ensembles.cli.session import describe

    head("1. The images")
    say(describe(session.images))
    say("The networks learn from the training images only; the test images are for measuring at the end.")
    head("2. The network")
    whole = session.whole
    say(
        f"{session.plan.architecture}, not trained yet: three convolutions, {whole.parameters:,} parameters, "
        f"{whole.bytes:,} bytes on disk. Results go to {folder}."
    )


_STRUCTURED = (
    "Search: each member learns a score for every channel of the untrained network. The weights stay as they are; a "
    "penalty on overlap makes the members choose different channels. Ranking: how much would the error change with "
    "each score? Then the channels with the highest importance per byte are kept, exactly as many as fit into the "
    "bytes of one network. Each member is cut out as a small network of its own, and trained on its own."
)
_SINGLE = (
    "The same network, whole, trained in the same way: what most people would use. It is asked once, so there is "
    "nobody to disagree with it."
)
_DEEP = (
    "4 whole networks, each drawn and trained on its own: the most dependable kind of ensemble, at 4 times the memory."
)
_BEFORE = {
    "structured": ("3. The structured ensemble: 4 members in the bytes of one network", _STRUCTURED),
    "single": ("4. For comparison: the single network", _SINGLE),
    "deep": ("5. For comparison: a deep ensemble", _DEEP),
}


def _before(contestant: Fittable) -> None:
    title, text = _BEFORE[contestant.method]
    head(title)
    say(text)


def _after(contestant: Fittable) -> None:
    from structured_ensembles.evaluation.blocks.structure import mean_overlap, widths

    if contestant.method != "structured":
        return
    layers = widths(contestant.record).values()
    whole = sum(layer["whole"] for layer in layers)
    kept = [sum(layer["members"][m] for layer in layers) for m in range(contestant.count)]
    say(
        f"Of {whole} channels the members keep {', '.join(map(str, kept[:-1]))} and {kept[-1]}. Any two of them share "
        f"{mean_overlap(contestant.record):.0%} of theirs on average."
    )


def _explain_table() -> None:
    head("6. The result, on the test images")
    say(
        "NLL, Brier and ECE say how good the probabilities are: lower is better. Entropy is doubt: low is good for "
        "right answers, high for wrong ones. Parameters, bytes and FLOPs (to predict one image) are what it costs."
    )
