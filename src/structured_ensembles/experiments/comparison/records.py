"""Many runs of many methods: one tidy row each, their statistics over seeds, and paired differences.

Words: a cell is one run of the grid; an arm is what the cells that differ only in their seed have in common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import fmean

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.statistics import Summary, interval, summary
from structured_ensembles.evaluation.text import csv_table
from structured_ensembles.files.plain import fields_of, is_a, object_of, require
from structured_ensembles.options.budget import Budget

UNIT = "single"
"""The method whose costs are 1x."""
_LEADING = ("accuracy", "nll", "ece", "brier")
"""The values that a reader looks for first; the others follow by the alphabet."""


@dataclass(frozen=True)
class Arm:
    """What is compared: a method at one size.

    Attributes:
        method: Its name.
        members: How many answers it averages.
        budget: What it may cost, as `Budget.parse` reads it; empty for a method that has a size of its own.
    """

    method: str
    members: int
    budget: str


@dataclass(frozen=True)
class Cell:
    """One run of the grid: an arm and the seed that everything random in it comes from."""

    method: str
    members: int
    budget: str
    seed: int

    @property
    def arm(self) -> Arm:
        """The cell without its seed."""
        return Arm(self.method, self.members, self.budget)

    @property
    def kind(self) -> str:
        """Cells of one method take about as long."""
        return self.method

    @property
    def name(self) -> str:
        """Of its file: no other cell has it."""
        budget = re.sub(r"[^\w.]+", "", self.budget) or "own"
        return f"{self.method}-{self.members}-{budget}-seed{self.seed}"


@dataclass(frozen=True)
class Result:
    """What came of a cell.

    Attributes:
        cell: Which one.
        error: Why it failed, in the words of the error; None if it finished.
        values: By name, what was measured. What is not a finite number, None included, is left out: missing.
        machine: What `seeding.machine` says: there the cell's seed gives these values again. Empty if not recorded.
    """

    cell: Cell
    error: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    machine: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", {name: value for name, value in self.values.items() if is_a(value, float)})

    @property
    def seconds(self) -> float | None:
        """How long fitting took; None if it failed, or went on from an earlier stop."""
        return self.values.get("seconds")


@dataclass(frozen=True)
class Difference:
    """How much larger a value is than the baseline's, seed by seed.

    Attributes:
        arm: What is compared.
        baseline: With what.
        value: Name of the value.
        pairs: How many seeds both have, 1 or more.
        mean: Of arm minus baseline.
        interval: Its lower and upper limit; None for a single pair, and for differences that are all the same but not
            zero, of whose spread nothing is known.
    """

    arm: Arm
    baseline: Arm
    value: str
    pairs: int
    mean: float
    interval: tuple[float, float] | None

    @property
    def clear(self) -> bool:
        """Whether there is an interval and it excludes zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def to_json(result: Result) -> dict[str, object]:
    """The result as plain values, unrounded; `from_json` reads them."""
    return {
        "cell": asdict(result.cell),
        "error": result.error,
        "values": dict(result.values),
        "machine": result.machine,
    }


def from_json(value: object) -> Result:
    """The result that `to_json` wrote.

    Raises:
        ArtefactError: Something is missing, unknown, of another type, or not finite.
    """
    run = object_of("a run", value, ("cell", "error", "values", "machine"))
    cell = Cell(**fields_of("a run's cell", run["cell"], Cell))
    _check(cell)
    error, values = run["error"], run["values"]
    require(is_a(error, str | None), f"a run's error must be text or null, not {error!r}.")
    require(isinstance(values, dict), f"a run's values must be a JSON object, not {values!r}.")
    odd = [name for name, number in values.items() if not (is_a(name, str) and is_a(number, float))]
    require(not odd, f"a run's values must be finite numbers: {', '.join(map(repr, odd))} is not.")
    require(is_a(run["machine"], str), f"a run's machine must be text, not {run['machine']!r}.")
    return Result(cell, error, values, run["machine"])


def _check(cell: Cell) -> None:
    """Refuse a cell that a file says, and nobody has checked."""
    require(is_a(cell.method, str) and cell.method != "", f"a run's method must be a name, not {cell.method!r}.")
    sized = is_a(cell.budget, str) and _readable(cell.budget)
    require(sized, f"a run's budget must be empty or as 1x, 0.5x params or 2MB are, not {cell.budget!r}.")
    require(is_a(cell.members, int) and cell.members >= 1, f"a run's members must be 1 or more, not {cell.members!r}.")
    require(is_a(cell.seed, int), f"a run's seed must be an integer, not {cell.seed!r}.")


def _readable(budget: str) -> bool:
    try:
        _size(budget)
    except SettingsError:
        return False
    return True


def tidy_csv(results: Sequence[Result], common: Mapping[str, object] | None = None) -> str:
    """A table with a header and one row per result, in the order given, for any program that reads CSV.

    Columns: what all rows have in ``common``; method, members, budget, seed; every value that some result has,
    unrounded and empty where it is missing (accuracy, nll, ece and brier first, the others by the alphabet); machine;
    error, empty for a run that finished.
    """
    names = {name for result in results for name in result.values}
    ordered = [*(name for name in _LEADING if name in names), *sorted(names.difference(_LEADING))]
    shared = common or {}
    return csv_table(
        [*shared, *(part.name for part in fields(Cell)), *ordered, "machine", "error"],
        [{**shared, **asdict(one.cell), **one.values, "machine": one.machine, "error": one.error} for one in results],
    )


def summarise(results: Sequence[Result]) -> list[Summary[Arm]]:
    """Every arm over its seeds, sorted by members, then budget (none first), then as the methods first come.

    Raises:
        DataError: A cell occurs twice.
        SettingsError: A budget cannot be read.
    """
    return [
        summary(arm, [run.values if run.error is None else None for run in runs.values()])
        for arm, runs in _by_arm(results).items()
    ]


def sections(summaries: Sequence[Summary[Arm]]) -> dict[int, list[Summary[Arm]]]:
    """By members, what belongs in one table or picture.

    The single network is what the others are measured by: it is in every section, and makes one of its own only if
    there is no other.
    """
    common = [one for one in summaries if one.arm.method == UNIT]
    rest = [one for one in summaries if one not in common]
    members = dict.fromkeys(one.arm.members for one in rest) or dict.fromkeys([1] if common else [])
    return {count: common + [one for one in rest if one.arm.members == count] for count in members}


def paired(results: Sequence[Result], baseline: str, value: str) -> list[Difference]:
    """What every arm has more than the baseline, each seed compared with the same seed.

    With d_i = arm - baseline of the n seeds that both have, the mean is d = sum(d_i) / n and the 95 % interval
    d -+ t(0.975, n - 1) s / sqrt(n), where s is the sample standard deviation of the d_i and t a quantile of Student's
    distribution. It assumes that differences are near normal, which few seeds can neither show nor make up for.

    An arm's baseline has the same members and the same budget; where there is none, the same members and no budget; the
    single network is that of all. Failed runs and missing values leave their seed out, and an arm
    without a pair, as the baseline itself, is left out.

    Args:
        results: Of any arms and seeds.
        baseline: Name of the method to subtract.
        value: Name of the value.

    Returns:
        In the order of `summarise`.

    Raises:
        DataError: A cell occurs twice.
        SettingsError: A budget cannot be read.
    """
    runs = _by_arm(results)
    differences = []
    for arm in runs:
        reference = _reference(arm, baseline, runs)
        if reference is None or reference == arm:
            continue
        ours, theirs = _by_seed(runs[arm], value), _by_seed(runs[reference], value)
        gaps = [number - theirs[seed] for seed, number in ours.items() if seed in theirs]
        if gaps:
            differences.append(Difference(arm, reference, value, len(gaps), fmean(gaps), interval(gaps)))
    return differences


def _reference(arm: Arm, baseline: str, known: Mapping[Arm, object]) -> Arm | None:
    sizes = ((1, ""),) if baseline == UNIT else ((arm.members, arm.budget), (arm.members, ""))
    return next((one for one in (Arm(baseline, *size) for size in sizes) if one in known), None)


def _by_seed(runs: Mapping[int, Result], value: str) -> dict[int, float]:
    return {seed: run.values[value] for seed, run in runs.items() if run.error is None and value in run.values}


def _by_arm(results: Sequence[Result]) -> dict[Arm, dict[int, Result]]:
    """By arm, in the order of `summarise`, then by seed."""
    arms: dict[Arm, dict[int, Result]] = {}
    for result in results:
        runs = arms.setdefault(result.cell.arm, {})
        if result.cell.seed in runs:
            raise DataError(f"{result.cell} occurs twice: pass every run once")
        runs[result.cell.seed] = result
    methods = list(dict.fromkeys(arm.method for arm in arms))
    order = sorted(arms, key=lambda arm: (arm.members, _size(arm.budget), methods.index(arm.method)))
    return {arm: arms[arm] for arm in order}


def _size(budget: str) -> tuple[bool, bool, str, float]:
    """Sorts none before multiples of the base network, and those before absolute budgets."""
    if not budget:
        return False, False, "", 0.0
    read = Budget.parse(budget)
    return True, not read.relative, read.unit, read.amount
