"""`structens fit`: train, measure and save a structured ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from structured_ensembles.cli.options import Sectioned, declared, options_of
from structured_ensembles.cli.printing import say
from structured_ensembles.cli.verb import folder_for, plugin_option
from structured_ensembles.options.plans import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structured_ensembles.cli.session import Session

_OUT = click.Path(path_type=Path)

_EXAMPLES = """
structens fit --data my_images/ --image-size 32 --architecture resnet20
structens fit --data mnist.npz --members 8 --keep 0.3 --against single,deep --out runs/mnist
structens fit --config runs/mnist/config.yaml --seed 1 --out runs/mnist-1
structens fit --resume --out runs/mnist
"""


@click.command(cls=Sectioned, options=options_of(Plan), examples=_EXAMPLES)
@declared(*options_of(Plan).values())
@plugin_option
@click.option(
    "--config", metavar="FILE.yaml", help="Read options from a file, one `name: value` a line; those given here win."
)
@click.option("--out", type=_OUT, help="A new folder for the results. [default: runs/DATA-ARCHITECTURE]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, which was stopped.")
def fit(config: str | None, out: Path | None, *, resume: bool, **parameters: Any) -> None:  # noqa: ANN401
    """Train, measure and save a structured ensemble.

    First every MEMBER looks for the channels of the untrained network that matter to it. Then the most important ones
    are kept: as many as fit into the BUDGET of all members together, or the share that you say with --keep. What is
    left of the network is cut out, once for each member, and trained on its own.

    Without any option: 4 members in the bytes of one small network, on handwritten digits.

    The folder holds structured.safetensors (the ensemble: give it to structens predict), config.yaml (every setting),
    metrics.json, learning_curves.png, reliability.png and log/. A run that was stopped, even by a power cut, goes on
    with --resume and ends with the same bytes.
    """
    from structured_ensembles.cli import configuration

    line = configuration.given(parameters)
    file = configuration.read(config) if config else {}
    values = configuration.merged(file, line)
    plan = configuration.plan(values)
    folder = out or folder_for([plan.data], plan.architecture)
    if resume:
        _resume(folder, values)
    else:
        _start(folder, plan)


def _start(folder: Path, plan: Plan) -> None:
    from structured_ensembles.cli import configuration, session
    from structured_ensembles.cli.folder import check_new, reserved

    check_new(folder)
    prepared = _prepared(plan, folder)
    with reserved(folder, configuration.text(plan)), session.resumable(folder):
        metrics = prepared.work(folder)
    session.report(metrics, folder)


def _resume(folder: Path, values: Mapping[str, Any]) -> None:
    """Go on; options may be given again, as long as they say what they said."""
    from structured_ensembles.cli import configuration, session
    from structured_ensembles.experiments import run

    plan = session.stored(folder)
    before = configuration.resolved(plan)
    session.check_same(folder, before, configuration.resolved(configuration.plan(configuration.merged(before, values))))
    metrics = run.finished(folder)
    if metrics is None:
        prepared = _prepared(plan, folder)
        with session.resumable(folder):
            metrics = prepared.work(folder)
    run.clear(folder)
    session.report(metrics, folder)


def _prepared(plan: Plan, folder: Path) -> Session:
    from structured_ensembles.cli.session import Session, describe

    prepared = Session(plan)
    say(describe(prepared.images))
    say(f"{plan.architecture} becomes a structured ensemble of {plan.members}. Results go to {folder}.")
    say()
    return prepared
