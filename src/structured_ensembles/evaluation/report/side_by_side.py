"""The headline numbers of several predictors, one beside the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from structured_ensembles.evaluation.report.words import (
    DECLINED,
    MISSING,
    accuracy,
    mean,
    milliseconds,
    number,
    percent,
    risk_after,
    short,
    size,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from structured_ensembles.evaluation.report.words import Json


@dataclass(frozen=True)
class Line:
    """One number of every predictor.

    Attributes:
        name: What it is.
        meaning: In half a sentence.
        cells: As printed, and whether it is the best one.
    """

    name: str
    meaning: str
    cells: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class _Measure:
    name: str
    meaning: str
    read: Callable[[Json], float | None]
    form: Callable[[float], str]
    higher: bool = False


def lines(predictors: Sequence[Json]) -> list[Line]:
    """A line for every number that any of the predictors has; the best are marked where they differ as printed."""
    found = ((measure, [measure.read(one) for one in predictors]) for measure in _measures(predictors))
    return [
        Line(measure.name, measure.meaning, _cells(values, measure))
        for measure, values in found
        if any(value is not None for value in values)
    ]


def _cells(values: Sequence[float | None], measure: _Measure) -> tuple[tuple[str, bool], ...]:
    known = [value for value in values if value is not None]
    best = measure.form((max if measure.higher else min)(known))
    texts = [MISSING if value is None else measure.form(value) for value in values]
    telling = len(set(texts) - {MISSING}) > 1
    return tuple((text, telling and text == best) for text in texts)


def _measures(predictors: Sequence[Json]) -> Iterator[_Measure]:
    yield _Measure("accuracy", "share of right answers", accuracy, lambda share: percent(share, 2), higher=True)
    declining = f"wrong answers among those given when it declines the {percent(DECLINED, 0)} that it doubts most"
    yield _Measure("risk after declining", declining, risk_after, lambda share: percent(share, 2))
    yield _calibrated("nll", "NLL", "surprise at the true answer, nats")
    yield _calibrated("ece", "ECE", "typical gap between confidence and accuracy")
    for name in _sets(predictors):
        yield _Measure(
            f"AUROC, {name}", "tells unfamiliar images by its doubt; 0.5 is guessing", _auroc(name), number, higher=True
        )
    epsilon = _middle(predictors)
    if epsilon is not None:
        yield _Measure(
            f"accuracy, FGSM {epsilon:g}", "under a one-step attack", _attacked(epsilon), percent, higher=True
        )
    yield _Measure("accuracy, damaged", "mean over all severities", _damaged, percent, higher=True)
    yield _Measure("bytes on disk", "its file", _cost("bytes"), size)
    yield _Measure("FLOPs", "operations for one image", _cost("flops"), short)
    yield _Measure("time for one image", "at batch size 1", _cost("milliseconds_batch_1"), milliseconds)


def _calibrated(key: str, name: str, meaning: str) -> _Measure:
    return _Measure(name, meaning, lambda one: (one["calibration"] or {}).get("uncalibrated", {}).get(key), number)


def _sets(predictors: Sequence[Json]) -> list[str]:
    """Names of the unfamiliar sets, each once, in the order in which they come."""
    return list(dict.fromkeys(found["name"] for one in predictors for found in one["out_of_distribution"] or ()))


def _auroc(name: str) -> Callable[[Json], float | None]:
    def read(predictor: Json) -> float | None:
        named = (found for found in predictor["out_of_distribution"] or () if found["name"] == name)
        return next((found["scores"].get("entropy", {}).get("auroc") for found in named), None)

    return read


def _middle(predictors: Sequence[Json]) -> float | None:
    """The middle one of the strengths: neither harmless nor hopeless."""
    strengths = sorted({row["epsilon"] for one in predictors for row in (one["adversarial"] or {}).get("fgsm", ())})
    return strengths[len(strengths) // 2] if strengths else None


def _attacked(epsilon: float) -> Callable[[Json], float | None]:
    def read(predictor: Json) -> float | None:
        rows = (predictor["adversarial"] or {}).get("fgsm", ())
        return next((row["accuracy"] for row in rows if row["epsilon"] == epsilon), None)

    return read


def _damaged(predictor: Json) -> float | None:
    return mean(row["accuracy"] for row in (predictor["corruptions"] or {}).get("by_severity", ()))


def _cost(key: str) -> Callable[[Json], float | None]:
    def read(predictor: Json) -> float | None:
        known = predictor["cost"]["ensemble"] if predictor["cost"] else {"bytes": predictor["bytes"]}
        return known.get(key)

    return read
