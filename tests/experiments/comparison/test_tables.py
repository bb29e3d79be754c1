from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from structured_ensembles.errors import DataError
from structured_ensembles.experiments.comparison.records import Cell, Result
from structured_ensembles.experiments.comparison.tables import console, failures, markdown


def runs(method: str, accuracies: list[float], members: int = 4, budget: str = "1x", **values: float) -> list[Result]:
    common = {"nll": 0.9, "ece": 0.02, "brier": 0.4, "bytes_on_disk": 1_000_000, "flops": 80_000_000}
    common |= {"training_flops": 2e12, "seconds": 65.0} | values
    return [
        Result(
            Cell(method, members, budget, seed), None, {"accuracy": value, **common, "nll": common["nll"] - seed * 1e-7}
        )
        for seed, value in enumerate(accuracies)
    ]


SINGLE = runs("single", [0.68, 0.70], 1, "", bytes_on_disk=2_000_000)
OURS = runs("structured", [0.70, 0.721], nll=0.95, training_flops=3e12)
OURS[1] = replace(OURS[1], values=OURS[1].values | {"nll": 0.95 + 1e-7})
FAILED = [Result(Cell("mimo", 4, "0.5x", seed), "too small:\n  0.7x is needed") for seed in (0, 3)]


def section(text: str, title: str) -> list[str]:
    """The lines below a heading, up to the next."""
    return (
        re.split(r"^#{3,4} ", text.split(f" {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0].strip().splitlines()
    )


def test_every_number_stands_in_the_page():
    deviation = 0.02 / 2**0.5
    head, ruler, single, ours = section(markdown(SINGLE + OURS), "4 members")
    titles = ["method", "budget", "seeds", "accuracy %", "NLL", "ECE", "Brier", "NLL, T", "ECE, T", "bytes", "FLOPs"]
    titles += ["training FLOPs", "time"]
    assert [title.strip() for title in head.strip("|").split("|")] == titles
    assert ruler.count("|") == head.count("|") == single.count("|")
    assert single.startswith(
        f"| `single` | - | 2 | 69.00 ± {100 * deviation:.2f} | 0.9000 ± 0.0000 | 0.0200 ± 0.0000 |"
    )
    assert single.endswith("| 2M (1.00x) | 80M (1.00x) | 2T (1.00x) | 65.0s |")
    assert ours.endswith("| 1M (0.50x) | 80M (1.00x) | 3T (1.50x) | 65.0s |")


def test_differences_have_intervals_and_clear_ones_are_bold():
    text = markdown(SINGLE + OURS + runs("random", [0.6, 0.8]) + runs("packed", [0.7]))
    *_, ours, random, packed = section(text, "Against `single`")
    half = 12.7062 * (0.0005 * 2**0.5) / 2**0.5  # Student's quantile of one degree of freedom; gaps 0.020 and 0.021
    low, high = (f"{100 * (0.0205 + sign * half):+.2f}" for sign in (-1, 1))
    assert ours.startswith(f"| `structured` | 1x | 2 | **+2.05 [{low}, {high}]** | **+0.0500 [+0.0500, +0.0500]** |")
    assert "| +1.00 [" in random
    assert "| +2.00 (one seed) |" in packed
    assert "**Bold**: the interval excludes zero" in text
    assert "95% interval" in text


def test_the_verdict_tells_wins_and_losses():
    results = SINGLE + OURS + runs("structured", [0.6, 0.8], budget="2x") + runs("narrow", [0.7])
    won = section(markdown(results), "Where `structured` wins and loses")
    small = "at 1x better in accuracy, not distinguishable in ECE, **worse** in NLL"
    assert won == [
        f"- Against `single`: {small}; at 2x not distinguishable in accuracy, NLL and ECE.",
        "- Against `narrow`: at 1x (1/2 seeds) undecided (too few seeds) in accuracy, NLL and ECE.",
        "- Against `deep`: not compared, no seed has both.",
    ]
    other = section(markdown(results, ["structured"], ours="single"), "Where `single` wins and loses")
    assert other == ["- Against `structured`: not compared, no seed has both."]
    assert section(markdown(SINGLE), "Where `structured` wins and loses") == [
        "`structured` was not run with these members."
    ]


def test_a_difference_over_some_of_the_seeds_only_says_over_how_many():
    ours = runs("structured", [0.7, 0.72, 0.74])
    failed = [replace(ours[2], error="killed", values={})]
    for results in (SINGLE + ours, runs("single", [0.6, 0.61, 0.6], 1, "") + ours[:2] + failed):
        text = markdown(results)
        assert section(text, "Against `single`")[-1].startswith("| `structured` | 1x | 2/3 | ")
        assert section(text, "Where `structured` wins and loses")[0].startswith(
            "- Against `single`: at 1x (2/3 seeds) "
        )


def test_differences_after_a_temperature_are_shown_where_every_pair_has_them():
    ours = runs("structured", [0.7, 0.72], nll_calibrated=0.85) + runs("random", [0.7, 0.72], nll_calibrated=0.8)
    del ours[2].values["nll_calibrated"]
    text = markdown(runs("single", [0.6, 0.61], 1, "", nll_calibrated=0.9) + ours)
    head, _, mine, random = section(text, "Against `single`")
    assert head == "| method | budget | seeds | accuracy (points) | NLL | ECE | NLL, T |"
    assert mine.endswith("| -0.0500 (all seeds the same) |")
    assert random.endswith("| - |")
    assert "NLL, T" not in section(markdown(SINGLE + OURS), "Against `single`")[0]


def test_differences_without_spread_decide_nothing():
    text = markdown(SINGLE + runs("structured", [0.68, 0.70], ece=0.03))
    assert section(text, "Against `single`")[-1].endswith("| +0.0100 (all seeds the same) |")
    verdict = section(text, "Where `structured` wins and loses")[0]
    assert verdict.endswith("not distinguishable in accuracy and NLL, undecided (the same in all seeds) in ECE.")


def test_each_number_of_members_has_a_section_and_a_missing_baseline_is_told():
    text = markdown(SINGLE + OURS + runs("structured", [0.5, 0.6], members=2))
    assert re.findall("^### (.*)", text, re.MULTILINE) == ["2 members", "4 members", "Failed runs"]
    assert all("`single`" in section(text, f"{count} members")[2] for count in (2, 4))
    assert section(text, "Against `deep`") == ["No arm has a seed in common with `deep`."]
    assert section(text, "Failed runs") == ["None: every run finished."]


def test_failed_runs_are_listed_with_their_reason():
    line = "mimo, 4 members, 0.5x, seeds 0, 3: too small: 0.7x is needed"
    other = Result(Cell("single", 1, "", 5), "killed")
    assert failures([*SINGLE, *FAILED, other]) == [line, "single, 1 member, seed 5: killed"]
    text = markdown([*SINGLE, *FAILED])
    assert section(text, "Failed runs") == [f"- {line}"]
    assert "| `mimo` | 0.5x | 0/2 | - | - | - | - | - | - | - | - | - | - |" in text


def test_missing_values_are_dashes_and_costs_without_a_single_network_stand_alone():
    bare = [Result(Cell("narrow", 4, "1x", 0), None, {"accuracy": 0.5, "bytes_on_disk": 1234})]
    line = "| `narrow` | 1x | 1 | 50.00 | - | - | - | - | - | 1.23k | - | - | - |"
    assert section(markdown(bare), "4 members")[2] == line


def test_a_mean_over_only_some_of_the_seeds_is_not_shown():
    ours = runs("structured", [0.70, 0.721], nll_calibrated=0.9123)
    assert "| 0.9123 ± 0.0000 |" in markdown(ours)
    del ours[0].values["nll_calibrated"]
    page = markdown(ours)
    assert "0.9123" not in page
    assert "| 71.05 ± " in page


def printed(results: list[Result], width: int = 100, *, terminal: bool = False) -> str:
    system = "standard" if terminal else None
    screen = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=system)
    console(results, screen)
    return screen.file.getvalue()


@pytest.mark.parametrize("width", [20, 80, 100])
def test_the_terminal_shows_all_in_100_columns(width):
    long = runs("a_method_with_a_very_long_name", [0.9999, 0.5], budget="0.25x", seconds=3_599.0)
    text = printed(SINGLE + OURS + long + FAILED, width)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "\x1b" not in text
    for number in ("71.05±1.48", "0.950±0.000", "0.50x", "1.50x", "59m 59s", "0/2"):
        assert number in text
    assert "failed: mimo, 4 members" in " ".join(text.split())


def test_the_best_of_equal_size_is_bold():
    text = printed(SINGLE + OURS + runs("random", [0.6, 0.8]) + runs("narrow", [0.9], 2, nll=0.1), terminal=True)
    bold = [found.strip() for found in re.findall("\x1b\\[1m(.*?)\x1b\\[0m", text.split("─\n")[1])]
    assert bold == ["71.05±1.48", "0.020±0.000", "0.900±0.000", "0.020±0.000"]


def test_a_run_that_occurs_twice_is_refused():
    with pytest.raises(DataError, match="occurs twice"):
        markdown(SINGLE + SINGLE)


def test_where_runs_were_made_is_told_if_it_is_known():
    assert "Run on" not in markdown(SINGLE + OURS)
    here = [replace(run, machine="torch 9, a chip") for run in SINGLE]
    assert "\nRun on: torch 9, a chip (2).\n" in markdown([*here, *(replace(run, machine="") for run in FAILED)])
    both = markdown(here + OURS)
    assert "\nRun on: torch 9, a chip (2); a machine not recorded (2). Another machine rounds differently" in both
