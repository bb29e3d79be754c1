"""A comparison in tables and plain words: for a page of documentation and for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from structured_ensembles.evaluation import text
from structured_ensembles.evaluation.statistics import CONFIDENCE, Summary, grouped
from structured_ensembles.evaluation.text import NONE, scaled
from structured_ensembles.experiments.comparison.records import (
    UNIT,
    Arm,
    Difference,
    Result,
    paired,
    sections,
    summarise,
)

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class _Quality:
    """A value that is better or worse: its name, how it is headed and printed, and which way is better."""

    value: str
    title: str
    digits: int
    scale: float = 1
    higher: bool = False

    def better(self, difference: float) -> bool:
        return (difference > 0) is self.higher


_ACCURACY = _Quality("accuracy", "accuracy", digits=2, scale=100, higher=True)
_NLL, _ECE, _BRIER = (_Quality(name.lower(), name, digits=4) for name in ("NLL", "ECE", "Brier"))
_TEMPERED = (_Quality("nll_calibrated", "NLL, T", digits=4), _Quality("ece_calibrated", "ECE, T", digits=4))
_COMPARED = (_ACCURACY, _NLL, _ECE)
_DIFFERENT = (*_COMPARED, *_TEMPERED)
"""What tables of differences show; the verdicts are of `_COMPARED`."""
_COSTS = {"bytes_on_disk": "bytes", "flops": "FLOPs", "training_flops": "training FLOPs"}

_FEW, _SAME = "undecided (too few seeds)", "undecided (the same in all seeds)"

_Found = dict[str, dict[str, dict[Arm, "Difference"]]]
"""By baseline, value and arm."""

_MEASURED = (
    "Measured: mean ± sample standard deviation over the seeds; in brackets the multiple of what "
    f"`{UNIT}` costs. Seeds: how many finished, of how many where some failed. T: with one temperature an "
    "ensemble, fitted on held-out images; shown where every seed has it."
)
_PAIRED = (
    "Against a baseline: arm minus baseline, each seed with the same seed (3/5: three of the arm's five seeds are the "
    f"baseline's too): mean and {CONFIDENCE:.0%} interval of Student's t, which assumes near-normal differences. "
    "**Bold**: the interval excludes zero, whether the arm is better or worse; among many intervals some do by chance, "
    "about one in twenty where nothing differs. The others are not distinguishable over these seeds, which does not "
    "show that they are equal."
)

_SEVERAL = (
    "Another machine rounds differently, which makes another network of the same seed: pairs from two machines have "
    "only their images, split and first weights in common."
)


def markdown(
    results: Sequence[Result], baselines: Sequence[str] = ("single", "narrow", "deep"), ours: str = "structured"
) -> str:
    """A part of a page: for every number of members what was measured, what differs from each baseline, and a verdict.

    Args:
        results: Every run once.
        baselines: Methods to compare all arms with; one that was not run is said to be missing.
        ours: The method whose wins and losses are put into words.

    Returns:
        Headings start at the third level; the last one lists the runs that failed and why.

    Raises:
        DataError: A cell occurs twice.
        SettingsError: A budget cannot be read.
    """
    against: _Found = {
        name: {one.value: {other.arm: other for other in paired(results, name, one.value)} for one in _DIFFERENT}
        for name in baselines
    }
    parts = [_MEASURED, *_machines(results), _PAIRED]
    for members, rows in sections(summarise(results)).items():
        parts += [f"### {text.counted(members, 'member')}", _measured(rows)]
        parts += [_differences(rows, name, found) for name, found in against.items()]
        parts += [f"#### Where `{ours}` wins and loses", _verdicts(rows, ours, against)]
    parts += ["### Failed runs", text.bullets(failures(results)) or "None: every run finished."]
    return "\n\n".join(parts) + "\n"


def failures(results: Sequence[Result]) -> list[str]:
    """The runs that failed, one line for all seeds of an arm that failed for the same reason."""
    return text.by_seed(
        (_named(one.cell.arm), one.cell.seed, " ".join(one.error.split())) for one in results if one.error is not None
    )


def _machines(results: Sequence[Result]) -> list[str]:
    """A paragraph on where runs were made, if any says it."""
    counts = Counter(result.machine or "a machine not recorded" for result in results if result.error is None)
    if not any(result.machine for result in results):
        return []
    told = f"Run on: {'; '.join(f'{name} ({count})' for name, count in counts.items())}."
    return [told if len(counts) == 1 else f"{told} {_SEVERAL}"]


def _named(arm: Arm) -> str:
    return ", ".join(filter(None, (arm.method, text.counted(arm.members, "member"), arm.budget)))


def _measured(rows: Sequence[Summary[Arm]]) -> str:
    qualities = (_ACCURACY, _NLL, _ECE, _BRIER, *_TEMPERED)
    titles = ("accuracy %", *(quality.title for quality in qualities[1:]))
    head = ["method", "budget", "seeds", *titles, *_COSTS.values(), "time"]
    unit = _unit(rows)
    return text.markdown_table(
        head,
        [
            [f"`{row.arm.method}`", row.arm.budget or NONE, text.finished(row)]
            + [_spread(row, quality, quality.digits) for quality in qualities]
            + [_cost(row, name, unit) for name in _COSTS]
            + [text.seconds(row)]
            for row in rows
        ],
        names=2,
    )


def _unit(rows: Sequence[Summary[Arm]]) -> Summary[Arm] | None:
    """What costs 1x."""
    return next((row for row in rows if row.arm == Arm(UNIT, 1, "")), None)


def _spread(row: Summary[Arm], quality: _Quality, digits: int, between: str = " ± ") -> str:
    return text.measured(row, quality.value, f"{{:.{digits}f}}", quality.scale, between)


def _cost(row: Summary[Arm], name: str, unit: Summary[Arm] | None) -> str:
    if name not in row.values:
        return NONE
    digits, prefix = scaled(row.values[name].mean)
    multiple = _multiple(row, name, unit)
    return f"{digits}{prefix}" + (f" ({multiple})" if multiple else "")


def _multiple(row: Summary[Arm], name: str, unit: Summary[Arm] | None) -> str:
    if unit is None or name not in row.values or name not in unit.values or not unit.values[name].mean:
        return ""
    return f"{row.values[name].mean / unit.values[name].mean:.2f}x"


def _differences(rows: Sequence[Summary[Arm]], baseline: str, found: Mapping[str, Mapping[Arm, Difference]]) -> str:
    """The table of what all arms have more than one baseline."""
    title = f"#### Against `{baseline}`\n\n"
    known = [(row, differences) for row in rows if (differences := _known(row.arm, found))]
    if not known:
        return f"{title}No arm has a seed in common with `{baseline}`."
    columns = {
        one: [_difference(found[one.value].get(row.arm), differences, one) for row, differences in known]
        for one in _DIFFERENT
    }
    shown = [one for one in _DIFFERENT if one in _COMPARED or {*columns[one]} != {NONE}]
    lines = [
        [f"`{row.arm.method}`", row.arm.budget or NONE, _pairs(row, differences), *(columns[one][at] for one in shown)]
        for at, (row, differences) in enumerate(known)
    ]
    heads = ["accuracy (points)", *(one.title for one in shown[1:])]
    return title + text.markdown_table(["method", "budget", "seeds", *heads], lines, names=2)


def _known(arm: Arm, found: Mapping[str, Mapping[Arm, Difference]]) -> list[Difference]:
    """What is known of an arm beside one baseline."""
    return [found[quality.value][arm] for quality in _COMPARED if arm in found[quality.value]]


def _pairs(row: Summary[Arm], differences: Sequence[Difference]) -> str:
    """Over how many seeds, and of how many where some have no pair."""
    pairs = min(one.pairs for one in differences)
    return f"{pairs}/{row.seeds}" if pairs < row.seeds else str(pairs)


def _difference(one: Difference | None, others: Sequence[Difference], quality: _Quality) -> str:
    # Over fewer seeds than its neighbours it would mislead.
    if one is None or one.pairs < min(other.pairs for other in others):
        return NONE
    mean, *limits = (f"{quality.scale * number:+.{quality.digits}f}" for number in (one.mean, *(one.interval or ())))
    alone = "one seed" if one.pairs == 1 else "all seeds the same"
    told = f"{mean} [{', '.join(limits)}]" if limits else f"{mean} ({alone})"
    return f"**{told}**" if one.clear else told


def _verdicts(rows: Sequence[Summary[Arm]], ours: str, against: _Found) -> str:
    """A line per baseline."""
    mine = [row for row in rows if row.arm.method == ours]
    if not mine:
        return f"`{ours}` was not run with these members."
    return "\n".join(_against(mine, name, found) for name, found in against.items() if name != ours)


def _against(mine: Sequence[Summary[Arm]], baseline: str, found: Mapping[str, Mapping[Arm, Difference]]) -> str:
    known = [(row, _known(row.arm, found)) for row in mine]
    parts = [f"{_where(row, differences)} {_verdict(row.arm, found)}" for row, differences in known if differences]
    return f"- Against `{baseline}`: {'; '.join(parts) or 'not compared, no seed has both'}."


def _where(row: Summary[Arm], differences: Sequence[Difference]) -> str:
    """At which budget, and over how many seeds where some have no pair."""
    size, pairs = f"at {row.arm.budget}" if row.arm.budget else "at its own size", _pairs(row, differences)
    return f"{size} ({pairs} seeds)" if "/" in pairs else size


def _verdict(arm: Arm, found: Mapping[str, Mapping[Arm, Difference]]) -> str:
    said: dict[str, list[str]] = {word: [] for word in ("better", "not distinguishable", "**worse**", _FEW, _SAME)}
    for quality in _COMPARED:
        said[_word(found[quality.value].get(arm), quality)].append(quality.title)
    return ", ".join(f"{word} in {_enumerated(titles)}" for word, titles in said.items() if titles)


def _word(difference: Difference | None, quality: _Quality) -> str:
    if difference is None or difference.interval is None:
        return _FEW if difference is None or difference.pairs == 1 else _SAME
    if not difference.clear:
        return "not distinguishable"
    return "better" if quality.better(difference.mean) else "**worse**"


def _enumerated(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def console(results: Sequence[Result], console: Console) -> None:
    """Print a compact table, at most 100 columns wide unless the console is wider, and why runs failed.

    Costs (bytes on disk, FLOPs of a prediction and of training) are multiples of the single network's where it was
    run. Of arms with the same members and budget the best value is bold, all of them where they look alike.

    Args:
        results: Every run once.
        console: Where to print; bold is left out where it is no terminal.

    Raises:
        DataError: A cell occurs twice.
        SettingsError: A budget cannot be read.
    """
    summaries = summarise(results)
    unit = _unit(summaries)
    table = text.columns("M", "budget", "seeds", "accuracy %", "NLL", "ECE", "bytes", "FLOPs", "train", "time")
    for group in _equal(summaries):
        qualities = zip(*(_marked(group, quality) for quality in _COMPARED), strict=True)
        for row, texts in zip(group, qualities, strict=True):
            costs = [_multiple(row, name, unit) or _cost(row, name, None) for name in _COSTS]
            table.add_row(*_name(row), *texts, *costs, text.seconds(row), end_section=row is group[-1])
    text.show(table, console, [f"failed: {line}" for line in failures(results)])


def _name(row: Summary[Arm]) -> tuple[Text, str, str, str]:
    return Text(row.arm.method), str(row.arm.members), row.arm.budget or NONE, text.finished(row)


def _equal(summaries: Sequence[Summary[Arm]]) -> list[list[Summary[Arm]]]:
    """Those with the same members and budget together."""
    return list(grouped(((one.arm.members, one.arm.budget), one) for one in summaries).values())


def _marked(group: Sequence[Summary[Arm]], quality: _Quality) -> list[Text]:
    """One value of every row; the best are bold if there is more than one row to be better than."""
    digits = min(quality.digits, 3)
    means = [row.values[quality.value].mean for row in group if quality.value in row.values]
    best = f"{quality.scale * (max if quality.higher else min)(means):.{digits}f}" if len(means) > 1 else None
    cells = [_spread(row, quality, digits, "±") for row in group]
    return [Text(cell, style="bold" if cell.split("±")[0] == best else "") for cell in cells]
