"""The headline numbers of several predictors, one beside the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from structured_ensembles.evaluation.report.words import (
    DECLINED,
    Json,
    accuracy,
    mean,
    milliseconds,
    number,
    percent,
    risk_after,
    short,
    size,
)


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
class _Number:
    """How it is read and printed, and which way is better."""

    name: str
    meaning: str
    read: Callable[[Json], float | None]
    form: Callable[[float | None], str]
    higher: bool = False


def lines(predictors: Sequence[Json]) -> list[Line]:
    """A line for every number that any of the predictors has; the best are marked where they differ as printed."""
    found = ((one, [one.read(predictor) for predictor in predictors]) for one in _numbers(predictors))
    return [
        Line(one.name, one.meaning, marked(values, list(map(one.form, values)), higher=one.higher))
        for one, values in found
        if any(value is not None for value in values)
    ]


def marked(
    values: Sequence[float | None], texts: Sequence[str], *, higher: bool | None
) -> tuple[tuple[str, bool], ...]:
    """Each text, and whether it is the best; what follows ± does not count, and none is where all look alike.

    Args:
        values: What the texts say; None where one is missing.
        texts: As printed.
        higher: Whether more is better; None where neither is.
    """
    heads = [text.split(" \N{PLUS-MINUS SIGN}")[0] for text in texts]
    known = [(value, head) for value, head in zip(values, heads, strict=True) if value is not None]
    if higher is None or len({head for _, head in known}) < 2:
        return tuple((text, False) for text in texts)
    best = (max if higher else min)(known)[1]
    return tuple((text, head == best) for text, head in zip(texts, heads, strict=True))


def _numbers(predictors: Sequence[Json]) -> Iterator[_Number]:
    yield _Number("accuracy", "share of right answers", accuracy, lambda share: percent(share, 2), higher=True)
    declining = f"wrong answers among those given when it declines the {percent(DECLINED, 0)} that it doubts most"
    yield _Number("risk after declining", declining, risk_after, lambda share: percent(share, 2))
    yield _calibrated("nll", "NLL", "surprise at the true answer, nats")
    yield _calibrated("ece", "ECE", "typical gap between confidence and accuracy")
    for name in _sets(predictors):
        yield _Number(
            f"AUROC, {name}", "tells unfamiliar images by its doubt; 0.5 is guessing", _auroc(name), number, higher=True
        )
    epsilon = _middle(predictors)
    if epsilon is not None:
        yield _Number(
            f"accuracy, FGSM {epsilon:g}", "under a one-step attack", _attacked(epsilon), percent, higher=True
        )
    yield _Number("accuracy, damaged", "mean over all severities", _damaged, percent, higher=True)
    yield _Number("bytes on disk", "its file", _cost("bytes"), size)
    yield _Number("FLOPs", "operations for one image", _cost("flops"), short)
    yield _Number("time for one image", "at batch size 1", _cost("milliseconds_batch_1"), milliseconds)


def _calibrated(key: str, name: str, meaning: str) -> _Number:
    return _Number(name, meaning, lambda one: (one["calibration"] or {}).get("uncalibrated", {}).get(key), number)


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
