"""A comparison in tables and plain words: for a page of documentation and for the terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from structured_ensembles.evaluation.statistics import CONFIDENCE
from structured_ensembles.evaluation.table import NONE, WIDTH, duration, scaled
from structured_ensembles.experiments.comparison.records import UNIT, Arm, paired, sections, summarise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

    from structured_ensembles.experiments.comparison.records import Difference, Result, Summary


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
        parts += [f"### {_members(members)}", _measured(rows)]
        parts += [_differences(rows, name, found) for name, found in against.items()]
        parts += [f"#### Where `{ours}` wins and loses", _verdicts(rows, ours, against)]
    parts += ["### Failed runs", "\n".join(f"- {line}" for line in failures(results)) or "None: every run finished."]
    return "\n\n".join(parts) + "\n"


def failures(results: Sequence[Result]) -> list[str]:
    """The runs that failed, one line for all seeds of an arm that failed for the same reason."""
    seeds: dict[tuple[Arm, str], list[int]] = {}
    for result in results:
        if result.error is not None:
            seeds.setdefault((result.cell.arm, " ".join(result.error.split())), []).append(result.cell.seed)
    return [
        f"{_named(arm)}, seed{'s' * (len(which) > 1)} {', '.join(map(str, which))}: {reason}"
        for (arm, reason), which in seeds.items()
    ]


def _machines(results: Sequence[Result]) -> list[str]:
    """A paragraph on where runs were made, if any says it."""
    counts = Counter(result.machine or "a machine not recorded" for result in results if result.error is None)
    if not any(result.machine for result in results):
        return []
    told = f"Run on: {'; '.join(f'{name} ({count})' for name, count in counts.items())}."
    return [told if len(counts) == 1 else f"{told} {_SEVERAL}"]


def _members(count: int) -> str:
    return f"{count} member{'s' * (count > 1)}"


def _named(arm: Arm) -> str:
    return ", ".join(filter(None, (arm.method, _members(arm.members), arm.budget)))


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown: two columns of names, then numbers."""
    ruler = ["---", "---", *["---:"] * (len(head) - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *rows))


def _measured(rows: Sequence[Summary]) -> str:
    qualities = (_ACCURACY, _NLL, _ECE, _BRIER, *_TEMPERED)
    titles = ("accuracy %", *(quality.title for quality in qualities[1:]))
    head = ["method", "budget", "seeds", *titles, *_COSTS.values(), "time"]
    unit = _unit(rows)
    return _lines(
        head,
        [
            [f"`{row.arm.method}`", row.arm.budget or NONE, _seeds(row)]
            + [_spread(row, quality, quality.digits) for quality in qualities]
            + [_cost(row, name, unit) for name in _COSTS]
            + [_time(row)]
            for row in rows
        ],
    )


def _unit(rows: Sequence[Summary]) -> Summary | None:
    """What costs 1x."""
    return next((row for row in rows if row.arm == Arm(UNIT, 1, "")), None)


def _seeds(row: Summary) -> str:
    return f"{row.seeds - row.failed}/{row.seeds}" if row.failed else str(row.seeds)


def _spread(row: Summary, quality: _Quality, digits: int, between: str = " ± ") -> str:
    spread = row.values.get(quality.value)
    # A mean over other seeds than those of the cells beside it would mislead.
    if spread is None or spread.count < row.seeds - row.failed:
        return NONE
    numbers = [spread.mean] if spread.deviation is None else [spread.mean, spread.deviation]
    return between.join(f"{quality.scale * number:.{digits}f}" for number in numbers)


def _cost(row: Summary, name: str, unit: Summary | None) -> str:
    if name not in row.values:
        return NONE
    digits, prefix = scaled(row.values[name].mean)
    multiple = _multiple(row, name, unit)
    return f"{digits}{prefix}" + (f" ({multiple})" if multiple else "")


def _multiple(row: Summary, name: str, unit: Summary | None) -> str:
    if unit is None or name not in row.values or name not in unit.values or not unit.values[name].mean:
        return ""
    return f"{row.values[name].mean / unit.values[name].mean:.2f}x"


def _time(row: Summary) -> str:
    return duration(row.values["seconds"].mean) if "seconds" in row.values else NONE


def _differences(rows: Sequence[Summary], baseline: str, found: Mapping[str, Mapping[Arm, Difference]]) -> str:
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
    return title + _lines(["method", "budget", "seeds", *heads], lines)


def _known(arm: Arm, found: Mapping[str, Mapping[Arm, Difference]]) -> list[Difference]:
    """What is known of an arm beside one baseline."""
    return [found[quality.value][arm] for quality in _COMPARED if arm in found[quality.value]]


def _pairs(row: Summary, differences: Sequence[Difference]) -> str:
    """Over how many seeds, and of how many where some have no pair."""
    pairs = min(one.pairs for one in differences)
    return f"{pairs}/{row.seeds}" if pairs < row.seeds else str(pairs)


def _difference(one: Difference | None, others: Sequence[Difference], quality: _Quality) -> str:
    # Over fewer seeds than its neighbours it would mislead.
    if one is None or one.pairs < min(other.pairs for other in others):
        return NONE
    mean, *limits = (f"{quality.scale * number:+.{quality.digits}f}" for number in (one.mean, *(one.interval or ())))
    alone = "one seed" if one.pairs == 1 else "all seeds the same"
    text = f"{mean} [{', '.join(limits)}]" if limits else f"{mean} ({alone})"
    return f"**{text}**" if one.clear else text


def _verdicts(rows: Sequence[Summary], ours: str, against: _Found) -> str:
    """A line per baseline."""
    mine = [row for row in rows if row.arm.method == ours]
    if not mine:
        return f"`{ours}` was not run with these members."
    return "\n".join(_against(mine, name, found) for name, found in against.items() if name != ours)


def _against(mine: Sequence[Summary], baseline: str, found: Mapping[str, Mapping[Arm, Difference]]) -> str:
    known = [(row, _known(row.arm, found)) for row in mine]
    parts = [f"{_where(row, differences)} {_verdict(row.arm, found)}" for row, differences in known if differences]
    return f"- Against `{baseline}`: {'; '.join(parts) or 'not compared, no seed has both'}."


def _where(row: Summary, differences: Sequence[Difference]) -> str:
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
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("", overflow="fold")
    for head in ("M", "budget", "seeds", "accuracy %", "NLL", "ECE", "bytes", "FLOPs", "train", "time"):
        table.add_column(head, justify="right", no_wrap=True)
    for group in _equal(summaries):
        qualities = zip(*(_marked(group, quality) for quality in _COMPARED), strict=True)
        for row, texts in zip(group, qualities, strict=True):
            costs = [_multiple(row, name, unit) or _cost(row, name, None) for name in _COSTS]
            table.add_row(*_name(row), *texts, *costs, _time(row), end_section=row is group[-1])
    natural = Measurement.get(console, console.options.update(width=10**4), table).maximum
    table.width = min(natural, max(console.width, WIDTH))
    console.print(table, crop=False)
    for line in failures(results):
        console.print(Text(f"failed: {line}"))


def _name(row: Summary) -> tuple[Text, str, str, str]:
    return Text(row.arm.method), str(row.arm.members), row.arm.budget or NONE, _seeds(row)


def _equal(summaries: Sequence[Summary]) -> list[list[Summary]]:
    """Those with the same members and budget together."""
    groups: dict[tuple[int, str], list[Summary]] = {}
    for summary in summaries:
        groups.setdefault((summary.arm.members, summary.arm.budget), []).append(summary)
    return list(groups.values())


def _marked(group: Sequence[Summary], quality: _Quality) -> list[Text]:
    """One value of every row; the best are bold if there is more than one row to be better than."""
    digits = min(quality.digits, 3)
    means = [row.values[quality.value].mean for row in group if quality.value in row.values]
    best = f"{quality.scale * (max if quality.higher else min)(means):.{digits}f}" if len(means) > 1 else None
    texts = [_spread(row, quality, digits, "±") for row in group]
    return [Text(text, style="bold" if text.split("±")[0] == best else "") for text in texts]
