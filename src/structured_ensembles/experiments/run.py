"""One run: data and settings in, a folder with artefacts, measurements and pictures out.

A run's folder holds ``structured.safetensors`` (and ``single.safetensors``, ... of what it is compared with),
``config.yaml``, ``metrics.json``, ``learning_curves.png``, ``reliability.png`` and the training logs in ``log``. While
it runs, ``state`` keeps what a stopped run goes on from.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from structured_ensembles.data import sources as datasets
from structured_ensembles.data.sources import ImageData
from structured_ensembles.errors import ArtefactError, NetworkError, first_line
from structured_ensembles.evaluation import cost
from structured_ensembles.evaluation.answers import Answers, ask_about
from structured_ensembles.evaluation.entry import evaluated, row, unfitted
from structured_ensembles.evaluation.metrics import Reliability, reliability
from structured_ensembles.evaluation.table import Row
from structured_ensembles.files.whole import write_whole
from structured_ensembles.methods import make
from structured_ensembles.methods.fitting import Fittable
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.methods.structured import StructuredEnsemble
from structured_ensembles.networks import NetworkSpec, build
from structured_ensembles.networks.modules import draw
from structured_ensembles.networks.sizes import Cost
from structured_ensembles.options.catalogue import METHODS
from structured_ensembles.options.plans import Plan
from structured_ensembles.prediction.ensemble import Ensemble

SCHEMA = 1
"""Of ``metrics.json``."""
STATE, LOGS, CONFIGURATION, METRICS = "state", "log", "config.yaml", "metrics.json"
_ROUNDING = 1e-3
"""How far the NLL of one ensemble on the same images may differ from one machine to another."""
_PACKAGES = ("structured-ensembles", "torch", "lightning", "torch-pruning", "numpy", "safetensors")


def network(plan: Plan, images: ImageData) -> NetworkSpec:
    """The whole network, which takes pixels in [0, 1] and normalises them itself.

    Raises:
        StructensError: It cannot be built for these images.
    """
    mean, std = datasets.mean_and_std(images.train)
    spec = NetworkSpec(plan.architecture, images.input_shape, len(images.classes), plan.arguments, mean, std)
    whole = draw(lambda: build(spec), 0).eval()
    try:
        with torch.no_grad():
            whole(torch.zeros(1, *spec.input_shape))
    except Exception as error:
        raise NetworkError(
            f"{plan.architecture} fails on images of {spec.input_shape} ({first_line(error)}): if they are too small, "
            "enlarge them with --image-size"
        ) from error
    return spec


def contestants(plan: Plan, spec: NetworkSpec) -> list[Fittable]:
    """The methods to fit, the structured ensemble first: it has the most to refuse, and should before the long work.

    Raises:
        SettingsError: A setting is outside its limits.
    """
    fittables: list[Fittable] = [StructuredEnsemble(spec, plan.members, settings=plan.settings)]
    return fittables + [make(name, spec, plan.members, plan.settings) for name in dict.fromkeys(plan.against)]


@dataclass(frozen=True)
class Carried:
    """What came of one method.

    Attributes:
        entry: Its part of ``metrics.json``.
        curve: Its reliability on the test set.
        histories: The learning curve of each member, by what a picture calls it.
    """

    entry: dict[str, Any]
    curve: Reliability
    histories: dict[str, Sequence[Mapping[str, float]]]


def carry_out(contestant: Fittable, images: ImageData, seed: int, folder: Path) -> Carried:
    """Fit one method, save its artefact in the folder, and measure it; what is there already is not done again.

    Raises:
        ArtefactError: The artefact of an earlier run is there and damaged, or was measured on other images.
        StructensError: What `fitting.Fittable.fit` refuses.
    """
    state, path = folder / STATE / contestant.method, folder / f"{contestant.method}.safetensors"
    resumed = state.exists()
    if path.exists() and not resumed:
        return _measured_again(path, images)
    contestant.fit(images.learned, seed=seed, directory=state)
    answers = ask_about(contestant, images.measured)
    seconds = None if resumed else contestant.seconds  # of a fit that was stopped only the last part is known
    entry = evaluated(contestant, answers, seconds=seconds)
    if not path.exists():
        contestant.save(path, measurements={"data": images.name, "test": _rounded(entry["metrics"])})
    return Carried({**entry, "file": path.name}, _curve(answers, images), _histories(contestant))


def _measured_again(path: Path, images: ImageData) -> Carried:
    """Of an artefact that was finished before; nothing is known any more of how its members learned."""
    ensemble = Ensemble.load(path)
    answers = ask_about(ensemble, images.measured)
    entry = evaluated(ensemble, answers)
    before: Any = ensemble.record.summary.get("test") or {}
    now = entry["metrics"]
    # Another machine rounds otherwise, other images differ by more.
    if before.get("examples") != now["examples"] or abs(before["nll"] - now["nll"]) > _ROUNDING:
        raise ArtefactError(
            f"{path} was measured on other images than these of {images.name}: take another --out, or measure it with "
            "structens evaluate"
        )
    return Carried({**entry, "file": path.name}, _curve(answers, images), {})


def _curve(answers: Answers, images: ImageData) -> Reliability:
    return reliability(answers.prediction.probabilities, images.measured.labels)


def _rounded(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 6) for name, value in metrics.items()}


def _histories(contestant: Fittable) -> dict[str, Sequence[Mapping[str, float]]]:
    if contestant.count == 1:
        return {contestant.method: contestant.trained[0].history}
    return {f"{contestant.method} {m + 1}": trained.history for m, trained in enumerate(contestant.trained)}


def finish(plan: Plan, images: ImageData, outcomes: Sequence[Carried], whole: Cost, folder: Path) -> dict[str, Any]:
    """Draw the pictures, write ``metrics.json`` and clear the state away; returns what the file holds."""
    from structured_ensembles.evaluation.pictures.curves import learning_curves, reliability_diagram

    histories = {name: history for outcome in outcomes for name, history in outcome.histories.items()}
    curves = folder / "learning_curves.png"
    if histories and (not curves.exists() or all(outcome.histories for outcome in outcomes)):
        learning_curves(histories, curves)
    reliability_diagram({o.entry["name"]: o.curve for o in outcomes}, folder / "reliability.png")
    metrics: dict[str, Any] = {
        "schema": SCHEMA,
        "seed": plan.seed,
        "architecture": plan.architecture,
        "data": {
            "name": images.name,
            "classes": list(images.classes),
            "input_shape": list(images.input_shape),
            "training_images": len(images.train),
            "test_images": len(images.test),
        },
        "whole_network": cost.as_json(whole),
        "methods": {outcome.entry["method"]: outcome.entry for outcome in outcomes},
        "versions": versions(),
    }
    write_whole(folder / METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    clear(folder)
    return metrics


def clear(folder: Path) -> None:
    """Keep the logs of a finished run and delete the rest of its state, several times the size of the artefacts."""
    for log in sorted((folder / STATE).glob(f"*/*/{LOGS}")):
        goal = folder / LOGS / log.parent.parent.name / log.parent.name
        goal.parent.mkdir(parents=True, exist_ok=True)
        if not goal.exists():
            log.replace(goal)
    shutil.rmtree(folder / STATE, ignore_errors=True)


def finished(folder: Path) -> dict[str, Any] | None:
    """What a run that has come to its end wrote into ``metrics.json``; None if it has not, or a file of it is gone.

    Raises:
        ArtefactError: The file is damaged.
    """
    path = folder / METRICS
    if not path.exists():
        return None
    try:
        metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if metrics["schema"] != SCHEMA:
            raise ArtefactError(f"{path} has schema {metrics['schema']}, and this version reads {SCHEMA}")
        rows(metrics)
        whole = all((folder / entry["file"]).exists() for entry in metrics["methods"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(f"{path} is damaged: delete it and resume the run to write it again") from error
    return metrics if whole else None


def rows(metrics: Mapping[str, Any]) -> list[Row]:
    """The table of a run: the single network, or the size of a whole one, first, as what the others are measured by."""
    entries: Mapping[str, Any] = metrics["methods"]
    first = [] if SingleNetwork.method in entries else [unfitted(cost.from_json(metrics["whole_network"]))]
    return [*first, *(row(entries[name]) for name in METHODS if name in entries)]


def versions() -> dict[str, str]:
    """Of Python and of the libraries that a result may depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}
