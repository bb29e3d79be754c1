"""Numbers as people read them, and what they mean in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from structured_ensembles.evaluation.report.gallery import Gallery
from structured_ensembles.evaluation.text import scaled
from structured_ensembles.options.catalogue import BLOCKS

Json: TypeAlias = Mapping[str, Any]
"""A part of the evaluation, as parsed from JSON."""

MISSING = "\N{EN DASH}"
DECLINED = 0.05
"""The share that the summary lets it decline."""

_ANSWERS = "answering the test images"

_TRUST = (
    (0.02, "Its confidence can be taken at its word"),
    (0.05, "Its confidence is a little too {bias}"),
    (math.inf, "Its confidence is too {bias} to be taken at its word"),
)
"""The sentence for a calibration error up to each limit."""


def percent(share: float | None, digits: int = 1) -> str:
    """A share from 0 to 1 as a percentage."""
    return MISSING if share is None else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def points(share: float | None) -> str:
    """A difference of shares in percentage points."""
    return MISSING if share is None else f"{100 * share:.1f} points"


def number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed number of decimals."""
    return MISSING if value is None else f"{value:.{digits}f}"


def whole(count: float | None) -> str:
    """A count, with thousands set apart."""
    return MISSING if count is None else f"{count:,.0f}"


def size(count: float | None) -> str:
    """Bytes, with three digits and a decimal prefix."""
    return MISSING if count is None else "{}\N{NO-BREAK SPACE}{}B".format(*scaled(count))


def short(count: float | None) -> str:
    """A large number with three digits and a decimal prefix."""
    return MISSING if count is None else "\N{NO-BREAK SPACE}".join(filter(None, scaled(count)))


def milliseconds(value: float | None) -> str:
    """A duration with three significant digits."""
    return MISSING if value is None else f"{value:.3g}\N{NO-BREAK SPACE}ms"


def share_of_100(auroc: float | None) -> str:
    """A probability as cases of a hundred: "97 of 100"."""
    return MISSING if auroc is None else f"{100 * auroc:.0f} of 100"


def times(ours: float, other: float) -> str:
    """How much one thing is beside another: "74 % less than", "as much as", "2.1 times as much as"."""
    ratio = ours / other
    if abs(ratio - 1) < 0.005:
        return "as much as"
    if ratio >= 2:
        return f"{ratio:.3g} times as much as"
    return f"{percent(abs(ratio - 1), 0)} {'more' if ratio > 1 else 'less'} than"


def accuracy(predictor: Json) -> float | None:
    """The share of right answers; None where it was not measured."""
    calibration = predictor["calibration"]
    return calibration["uncalibrated"]["accuracy"] if calibration else None


def risk_after(predictor: Json, declined: float = DECLINED) -> float | None:
    """The share of wrong answers that is left if it declines the share it doubts most; None if nobody knows."""
    selective = predictor["selective"]
    curve = selective["curve"] if selective else {"coverage": (), "risk": ()}
    spots = list(zip(curve["coverage"], curve["risk"], strict=True))
    coverage, risk = min(spots, key=lambda spot: abs(spot[0] - (1 - declined)), default=(0, None))
    return risk if abs(coverage - (1 - declined)) <= declined / 2 else None


def summary(predictor: Json) -> list[str]:
    """What the numbers say, one sentence each; what was not measured is left out."""
    sentences = (_mistakes(predictor), _trust(predictor), _unfamiliar(predictor), _size(predictor))
    return [sentence for sentence in sentences if sentence]


def _mistakes(predictor: Json) -> str | None:
    right = accuracy(predictor)
    if right is None:
        return None
    after = risk_after(predictor)
    rest = (
        "" if after is None else f"; if it may decline the {percent(DECLINED, 0)} that it doubts most, {wrong(after)}"
    )
    return f"Of 1,000 answers it gives, {wrong(1 - right)} wrong{rest}."


def wrong(risk: float) -> str:
    """How many of 1,000 answers, with its verb: "12 are"."""
    count = 1000 * risk
    if 1e-6 < count < 0.5:
        return "fewer than 1 is"
    return f"{count:.0f} are" if round(count) > 1 else ("1 is" if round(count) else "none is")


def _trust(predictor: Json) -> str | None:
    block = predictor["calibration"]
    if not block:
        return None
    before, after = block["uncalibrated"], block["calibrated"]
    verdict = next(words for limit, words in _TRUST if before["ece"] <= limit)
    mended = (
        f" A correction kept with it (temperature scaling) brings the typical gap between the two from "
        f"{100 * before['ece']:.1f} to {points(after['ece'])}."
        if after
        else ""
    )
    claimed, right = confidence(block["reliability"]), before["accuracy"]
    average = f"on average it claims {percent(claimed)}, and is right in {percent(right)} of cases"
    return f"{verdict.format(bias='high' if claimed > right else 'low')}: {average}.{mended}"


def confidence(reliability: Json) -> float:
    """Mean confidence of all answers."""
    bins = zip(reliability["confidence"], reliability["count"], strict=True)
    return float(sum(count * sure for sure, count in bins if count) / max(sum(reliability["count"]), 1))


def _unfamiliar(predictor: Json) -> str | None:
    found = {
        one["name"]: one["scores"].get("entropy", {}).get("auroc") for one in predictor["out_of_distribution"] or ()
    }
    known = sorted((auroc, name) for name, auroc in found.items() if auroc is not None)
    if not known:
        return None
    (low, worst), (high, best) = known[0], known[-1]
    cases = f"{100 * low:.0f} ({worst})" + (f" to {100 * high:.0f} ({best})" if len(known) > 1 else "")
    return (
        f"Shown images unlike those that it learned from, it is in more doubt than about a familiar one in {cases} "
        "of 100 comparisons; guessing gives 50."
    )


def present(predictor: Json) -> dict[str, str]:
    """The blocks that have something to show, in plain words; a single member cannot differ from others."""
    shown = {block: BLOCKS.about(block) for block in BLOCKS if predictor[block]}
    if predictor["members"] == 1:
        shown.pop("structure", None)
    return shown


def costs(predictor: Json) -> Json | None:
    """What it costs beside others; a deep ensemble of one member is the dense network once more, and left out."""
    found: Json | None = predictor["cost"]
    return {**found, "deep": None} if found and predictor["members"] == 1 else found


def interval(share: float, count: int) -> str:
    """Where a share of so many examples may lie: Wilson's interval of 95 %."""
    z = 1.96
    middle, spread = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = ((middle + side * spread) / (1 + z * z / count) for side in (-1, 1))
    return f"{100 * max(low, 0):.1f} to {percent(min(high, 1))}"


def _size(predictor: Json) -> str | None:
    cost = costs(predictor)
    if not cost:
        return f"Its file takes {size(predictor['bytes'])}." if predictor["bytes"] else None
    ours = cost["ensemble"]["bytes"]
    others = (("one dense network", cost["dense"]), (f"a deep ensemble of {predictor['members']}", cost["deep"]))
    beside = [f"{times(ours, other['bytes'])} {name} ({size(other['bytes'])})" for name, other in others if other]
    return f"It takes {size(ours)} on disk{': ' if beside else ''}{', and '.join(beside)}."


def not_measured(predictor: Json) -> list[str]:
    """What is absent and did not fail, in plain words."""
    return [BLOCKS.about(block) for block in BLOCKS if not predictor[block] and block not in _failed(predictor)]


def failures(predictor: Json) -> list[tuple[str, str]]:
    """What was tried and failed, in plain words, and the message."""
    return [(_plain(block), message) for block, message in predictor["failures"].items()]


def _plain(block: str) -> str:
    kind, _, name = block.partition(": ")
    words = _ANSWERS if kind == "answers" else BLOCKS.about(kind) or kind
    return words + (f" ({name})" if name else "")


def _failed(predictor: Json) -> set[str]:
    return {block.partition(": ")[0] for block in predictor["failures"]}


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that there are; None where there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def mean_overlap(layers: Sequence[Json]) -> list[list[float]]:
    """Overlap of every two members, mean over layers."""
    members = range(len(layers[0]["overlap"]))
    return [[sum(layer["overlap"][a][b] for layer in layers) / len(layers) for b in members] for a in members]


def of_pairs(overlap: Sequence[Sequence[float]]) -> float | None:
    """Mean over the pairs of different members; None where there is a single one."""
    return mean(value for a, row in enumerate(overlap) for value in row[:a])


def stored(predictor: Json) -> float | None:
    """The threshold kept with it, in nats."""
    return predictor["selective"]["threshold"] if predictor["selective"] else None


def doubts(gallery: Gallery, predictor: Json, classes: int) -> dict[str, object]:
    """What the slider needs to know."""
    highest = math.log(max(classes, 2))
    return {"entropies": gallery.entropies, "right": gallery.right, "highest": highest, "threshold": stored(predictor)}
