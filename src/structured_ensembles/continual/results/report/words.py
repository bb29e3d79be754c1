"""A stream in sentences and in lines of tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from structured_ensembles.continual.results import curves
from structured_ensembles.continual.results.curves import JOINT, SEPARATE, Results
from structured_ensembles.continual.results.records import PARTS
from structured_ensembles.continual.streams.protocol import StreamResult
from structured_ensembles.evaluation.report.side_by_side import Line, marked
from structured_ensembles.evaluation.report.words import MISSING, mean, percent, size, times
from structured_ensembles.evaluation.statistics import Spread
from structured_ensembles.evaluation.text import duration
from structured_ensembles.options.catalogue import STRATEGIES

PART_NAMES: Mapping[str, str] = {
    "shared": "weights",
    "normalisation": "normalisation",
    "masks": "owners or masks",
    "heads": "heads",
    "data": "kept images",
}
"""What the parts of `Memory` are called."""


@dataclass(frozen=True)
class Column:
    """A number of every strategy: its name, what it means, how it is printed, and which way is better."""

    key: str
    name: str
    meaning: str
    form: Callable[[Spread], str]
    higher: bool | None = None


def shares(one: Spread) -> str:
    """A share and its deviation: "97.1 ± 0.4 %"."""
    return f"{100 * one.mean:.1f}{_deviation(one)}\N{NO-BREAK SPACE}%"


def points(one: Spread) -> str:
    """A difference of shares in percentage points, and its deviation: "+0.3 ± 0.1"."""
    mean = round(100 * one.mean, 1) + 0.0  # no minus before a zero
    return f"{mean:{'+' if mean else ''}.1f}{_deviation(one)}"


def _deviation(one: Spread) -> str:
    return "" if one.deviation is None else f" \N{PLUS-MINUS SIGN} {100 * one.deviation:.1f}"


MAIN = (
    Column("average_accuracy", "accuracy", "mean over the tasks, at the end", shares, higher=True),
    Column("forgetting", "forgetting", "points below a task's best, at the end", points, higher=False),
    Column("transfer", "transfer", "points over separate networks when just learned", points, higher=True),
    Column("bytes", "memory", "to answer, and to go on learning", lambda one: size(one.mean), higher=False),
    Column("ratio", "of separate", "memory, beside that of separate networks", lambda one: percent(one.mean, 0)),
    Column("seconds", "time", "of learning", lambda one: duration(one.mean)),
)
"""The columns of the first table."""

MORE = (
    Column("total_accuracy", "total accuracy", "mean over all tasks and the whole stream", shares, higher=True),
    Column(
        "backward_transfer_lopez_paz",
        "backward transfer",
        "points gained since a task was learned, at the end (Lopez-Paz and Ranzato)",
        points,
        higher=True,
    ),
    Column(
        "backward_transfer_diaz_rodriguez",
        "over the stream",
        "the same, mean over the whole stream (Diaz-Rodriguez et al.)",
        points,
        higher=True,
    ),
    Column("intransigence", "intransigence", "points below joint training when just learned", points, higher=False),
)
"""The columns of the second one."""


def lines(results: Results, columns: Sequence[Column]) -> list[Line]:
    """A line for each strategy; the best of a column are marked where they differ as printed."""
    found = curves.numbers(results)
    cells = [_cells([found[name].get(column.key) for name in results], column) for column in columns]
    return [Line(name, STRATEGIES.about(name), tuple(line)) for name, *line in zip(results, *cells, strict=True)]


def _cells(values: Sequence[Spread | None], column: Column) -> tuple[tuple[str, bool], ...]:
    texts = [MISSING if value is None else column.form(value) for value in values]
    return marked([None if value is None else value.mean for value in values], texts, higher=column.higher)


def spent(results: Results) -> dict[str, str]:
    """The parts of `Memory` that any strategy spends bytes on, and what they are called."""
    return {part: PART_NAMES[part] for part in PARTS if any(curves.parts(runs)[part] for runs in results.values())}


def with_means(runs: Sequence[StreamResult]) -> list[list[float | None]]:
    """R, mean over the seeds, and at the end of each row its mean over the tasks so far."""
    return [[*row, mean(row)] for row in curves.matrix(runs)]


def labels(tasks: Sequence[str]) -> list[str]:
    """What tasks are called at the edge of a table: their names if all are short, else numbers."""
    return list(tasks) if max(map(len, tasks)) <= 12 else [f"task {i + 1}" for i in range(len(tasks))]


def seeds(results: Results) -> str:
    """How many seeds there are: "3 seeds each", "2 to 3 seeds each"."""
    counts = sorted({len(runs) for runs in results.values()})
    several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"{several} seed{'s' if counts[-1] > 1 else ''}{' each' if len(results) > 1 else ''}"


def summary(results: Results, proved: Collection[str] = ()) -> list[str]:
    """What the numbers say, one sentence or two each, of the strategy that comes first.

    Args:
        results: By strategy, one result for each seed.
        proved: The strategies that were found to have forgotten nothing, to the bit.
    """
    first = curves.subject(results)
    sentences = (_learned(results, first, proved), _memory(results, first), _bounds(results, first), _others(results))
    return [sentence for sentence in sentences if sentence]


def _learned(results: Results, first: str, proved: Collection[str]) -> str:
    numbers = curves.numbers(results)[first]
    right, runs = numbers["average_accuracy"], results[first]
    tasks = len(runs[0].steps)
    over = (
        "" if right.deviation is None else f" (\N{PLUS-MINUS SIGN} {100 * right.deviation:.1f} over {len(runs)} seeds)"
    )
    told = f"After {tasks} task{'s' * (tasks > 1)} it answers {percent(right.mean)} right on average{over}"
    return f"{told}, and {_forgot(results, first, proved)}." if tasks > 1 else f"{told}."


def _forgot(results: Results, first: str, proved: Collection[str]) -> str:
    if curves.unchanged(results[first]):
        if first in proved:
            return "has forgotten nothing: every number of the old tasks is the same to the bit"
        return "has forgotten nothing: measured again, every earlier task has exactly the accuracy that it had at first"
    lost = 100 * curves.numbers(results)[first]["forgetting"].mean
    if round(lost, 1) <= 0:
        return "is as good at the earlier tasks as it has ever been, though not the same"
    return f"is {lost:.1f} points below its best at the earlier ones: it has forgotten some of what it knew"


def _memory(results: Results, first: str) -> str:
    ours = curves.numbers(results)[first]["bytes"].mean
    told = f"It takes {size(ours)}"
    if SEPARATE in results and first != SEPARATE:
        separate = curves.numbers(results)[SEPARATE]["bytes"].mean
        told += f", {times(ours, separate)} separate networks, which take {size(separate)}"
    added = [one.mean for one in curves.marginal(results[first])]
    if len(added) > 1 and all(later < earlier for earlier, later in pairwise(added)):
        ends = f"{size(added[0])} with the first, {size(added[-1])} with the last"
        told += f". Each task adds less than the one before: {ends}"
    return f"{told}."


def _bounds(results: Results, first: str) -> str | None:
    """How it stands between networks that share nothing and one that learns all at once."""
    right = {name: numbers["average_accuracy"].mean for name, numbers in curves.numbers(results).items()}
    subjects = {SEPARATE: "Separate networks answer", JOINT: "Joint training on all images answers"}
    told = [
        f"{words} {percent(right[name])} right ({_apart(right[name] - right[first])})"
        for name, words in subjects.items()
        if name in results and name != first
    ]
    return f"{'. '.join(told)}." if told else None


def _apart(difference: float) -> str:
    """A difference in words: "0.9 points more"."""
    distance = round(100 * abs(difference), 1)
    return f"{distance:.1f} points {'more' if difference > 0 else 'less'}" if distance else "as much"


def _others(results: Results) -> str | None:
    """Who is best at what, whether or not that is the first strategy."""
    if len(results) < 3:
        return None
    found = curves.numbers(results)
    best = max(found, key=lambda name: found[name]["average_accuracy"].mean)
    least = min(found, key=lambda name: found[name]["bytes"].mean)
    highest, fewest = percent(found[best]["average_accuracy"].mean), size(found[least]["bytes"].mean)
    who = "" if best == least else f"{least} "
    return (
        f"Of {len(results)} strategies, {best} has the highest accuracy ({highest}), and {who}takes the fewest bytes "
        f"({fewest})."
    )
