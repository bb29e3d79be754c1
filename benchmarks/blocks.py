"""What four methods know that they do not know, by block of `structens evaluate --all`: a section of the results."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from structured_ensembles import Ensemble
from structured_ensembles.data import sources
from structured_ensembles.evaluation import text
from structured_ensembles.evaluation.assessment import assess, evaluation
from structured_ensembles.evaluation.subject import Extent
from structured_ensembles.experiments import run
from structured_ensembles.files.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from structured_ensembles.data.sources import Unlabelled
    from structured_ensembles.options.plans import Plan

METHODS = ("single", "structured", "narrow", "deep")
Entry = dict[str, Any]


def _ood(name: str, score: str = "auroc") -> Callable[[Entry], float]:
    return lambda e: next(one for one in e["out_of_distribution"] if one["name"] == name)["scores"]["entropy"][score]


def _attacked(kind: str, epsilon: float) -> Callable[[Entry], float]:
    return lambda e: 100 * next(one for one in e["adversarial"][kind] if one["epsilon"] == epsilon)["accuracy"]


def _corrupted(severity: int, key: str, scale: float = 1) -> Callable[[Entry], float]:
    def read(e: Entry) -> float:
        found = next(one for one in e["corruptions"]["by_severity"] if one["severity"] == severity)
        return scale * float(found[key])

    return read


def _calibration(which: str, key: str, scale: float = 1) -> Callable[[Entry], float]:
    return lambda e: scale * e["calibration"][which][key]


def _transferred(e: Entry) -> float | None:
    """How often the ensemble is right on what was made for one of its members."""
    transfer = e["adversarial"]["transfer"]
    return transfer and 100 * fmean(row[0] for row in transfer["accuracy"])


def _rows(outside: Sequence[str]) -> list[tuple[str, str, Callable[[Entry], float | None]]]:
    """What a row is called, how it is printed, and where it is."""
    uncalibrated, calibrated = partial(_calibration, "uncalibrated"), partial(_calibration, "calibrated")
    return [
        ("accuracy %", ".2f", uncalibrated("accuracy", 100)),
        ("NLL", ".4f", uncalibrated("nll")),
        ("Brier", ".4f", uncalibrated("brier")),
        ("ECE, 15 bins", ".4f", uncalibrated("ece")),
        ("adaptive ECE", ".4f", uncalibrated("adaptive_ece")),
        ("class-wise ECE", ".4f", uncalibrated("classwise_ece")),
        ("NLL with a temperature", ".4f", calibrated("nll")),
        ("ECE with a temperature", ".4f", calibrated("ece")),
        ("entropy, right answers", ".3f", lambda e: e["uncertainty"]["entropy_right"]),
        ("entropy, wrong answers", ".3f", lambda e: e["uncertainty"]["entropy_wrong"]),
        ("mutual information", ".4f", lambda e: e["uncertainty"]["mutual_information"]),
        ("disagreement of pairs %", ".2f", lambda e: 100 * e["uncertainty"]["disagreement"]),
        ("AURC x 1000", ".3f", lambda e: 1000 * e["selective"]["aurc"]),
        ("risk at 80 % coverage, %", ".3f", lambda e: 100 * e["selective"]["risk_at_80_coverage"]),
        ("declined above the threshold, %", ".1f", lambda e: 100 * e["selective"]["at_threshold"]["rejected_share"]),
        ("accuracy of the rest, %", ".2f", lambda e: 100 * e["selective"]["at_threshold"]["accuracy_of_kept"]),
        *((f"AUROC, {name}", ".3f", _ood(name)) for name in outside),
        *((f"FPR95, {name}", ".3f", _ood(name, "fpr95")) for name in outside),
        ("accuracy %, FGSM 0.02", ".1f", _attacked("fgsm", 0.02)),
        ("accuracy %, FGSM 0.1", ".1f", _attacked("fgsm", 0.1)),
        ("accuracy %, PGD 0.02", ".1f", _attacked("pgd", 0.02)),
        ("accuracy %, made for a member", ".1f", _transferred),
        ("accuracy %, corruptions 1", ".1f", _corrupted(1, "accuracy", 100)),
        ("accuracy %, corruptions 3", ".1f", _corrupted(3, "accuracy", 100)),
        ("accuracy %, corruptions 5", ".1f", _corrupted(5, "accuracy", 100)),
        ("NLL, corruptions 3", ".3f", _corrupted(3, "nll")),
        ("bytes on disk", ",.0f", lambda e: e["bytes"]),
        ("FLOPs an image, M", ".2f", lambda e: e["cost"]["ensemble"]["flops"] / 1e6),
        ("resident MB above the libraries", ".0f", _resident),
        ("ms, 128 images", ".1f", lambda e: e["cost"]["ensemble"]["milliseconds_batch_128"]),
    ]


def _resident(e: Entry) -> float | None:
    cost = e["cost"]["ensemble"]
    return None if cost["peak_bytes"] is None else (cost["peak_bytes"] - cost["bytes_before"]) / 1e6


def measure(plan: Plan, folder: Path, outside: Sequence[Unlabelled]) -> None:
    """Fit the four methods, and measure everything about them; what is there already is not done again."""
    goal = folder / "evaluation.json"
    if goal.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    plan = replace(plan, against=tuple(name for name in METHODS if name != "structured"))
    images = sources.load(plan.data)
    spec = run.network(plan, images)
    for contestant in run.contestants(plan, spec):
        run.carry_out(contestant, images, plan.seed, folder)
    paths = [folder / f"{name}.safetensors" for name in METHODS]
    entries = [assess(Ensemble.load(path), path, images, outside, Extent(), path.stem).entry for path in paths]
    write_whole(goal, json.dumps(evaluation(images, entries), indent=2, allow_nan=False))


def section(folders: Sequence[Path]) -> str:
    """A table of the four methods, means over the seeds that have been measured; empty if none has."""
    found = [json.loads(path.read_text()) for folder in folders if (path := folder / "evaluation.json").exists()]
    if not found:
        return ""
    by_method = {name: [one for run_ in found for one in run_["predictors"] if one["name"] == name] for name in METHODS}
    outside = [one["name"] for one in by_method["single"][0]["out_of_distribution"]]
    head = [f"mean of {text.counted(len(found), 'seed')}", *(f"`{name}`" for name in METHODS)]
    lines = [
        [title, *(_cell([_read(read, entry) for entry in by_method[name]], form) for name in METHODS)]
        for title, form, read in _rows(outside)
    ]
    return text.markdown_table(head, lines, names=len(head))


def _read(read: Callable[[Entry], float | None], entry: Entry) -> float | None:
    """A value of an entry; None if its block could not be measured and is not there."""
    try:
        return read(entry)
    except (KeyError, StopIteration, TypeError):
        return None


def _cell(values: Sequence[float | None], form: str) -> str:
    """The mean over the seeds; a dash unless every seed has it, or columns would be of different seeds."""
    known = [value for value in values if value is not None]
    return format(fmean(known), form) if known and len(known) == len(values) else "-"
