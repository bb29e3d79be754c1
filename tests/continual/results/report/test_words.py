from __future__ import annotations

from dataclasses import replace

import pytest

from structured_ensembles.continual.results import curves
from structured_ensembles.continual.results.report import summary, words
from structured_ensembles.evaluation.statistics import Spread
from structured_ensembles.options.catalogue import STRATEGIES


def plain(results, proved=()):
    return [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in summary(results, proved)]


def spread_of(results, name, key):
    return curves.numbers(results)[name][key]


def test_every_strategy_has_its_words():
    assert all(STRATEGIES.about(name) for name in STRATEGIES)
    assert set(words.PART_NAMES) == set(words.PARTS)


def test_it_is_said_how_much_is_right_and_that_nothing_is_forgotten(made_up):
    results = made_up()
    right = spread_of(results, "structured", "average_accuracy")
    over = f"(± {100 * right.deviation:.1f} over 3 seeds)"
    said = f"After 4 tasks it answers {100 * right.mean:.1f} % right on average {over}"
    measured, proved = plain(results)[0], plain(results, {"structured"})[0]
    assert measured == (
        f"{said}, and has forgotten nothing: measured again, every earlier task has exactly the accuracy that it had "
        "at first."
    )
    assert proved == f"{said}, and has forgotten nothing: every number of the old tasks is the same to the bit."


def test_what_is_proved_of_one_strategy_is_not_said_of_another(made_up):
    assert "to the bit" not in plain(made_up(["packnet"]), {"structured"})[0]


def test_what_was_forgotten_is_said_even_if_it_was_called_proved(made_up):
    results = made_up(["naive"])
    lost = 0.05 * (3 + 2 + 1) / 3
    said = plain(results, {"naive"})[0]
    assert said.endswith(
        f"and is {100 * lost:.1f} points below its best at the earlier ones: it has forgotten some of what it knew."
    )


def test_getting_better_is_neither_forgetting_nor_standing_still(made_up):
    (run,) = made_up(["hat"], tasks=2, seeds=1)["hat"]
    first, last = run.steps
    better = replace(last, accuracies=(first.accuracies[0] + 0.01, last.accuracies[1]))
    said = plain({"hat": [replace(run, steps=(first, better))]})[0]
    assert said.endswith("and is as good at the earlier tasks as it has ever been, though not the same.")


def test_one_task_cannot_be_forgotten(made_up):
    (said, memory) = plain(made_up(["structured"], tasks=1, seeds=1))
    assert said.startswith("After 1 task it answers")
    assert "forgot" not in said
    assert memory == "It takes 51.5 kB."


def test_memory_is_set_beside_separate_networks(made_up):
    ours, separate = 100_000 * (1 - 0.5**4) + 800 + 200 + 2000, 400_000 + 800 + 2000
    said = plain(made_up())[1]
    assert f"It takes {ours / 1000:.3g} kB, {100 * (1 - ours / separate):.0f} % less than separate networks" in said
    assert said.endswith("Each task adds less than the one before: 51.5 kB with the first, 6.75 kB with the last.")


def test_memory_that_grows_evenly_is_not_called_falling(made_up):
    assert plain(made_up(["single_task"]))[1] == "It takes 403 kB."


def test_the_bounds_and_the_best_are_told(made_up):
    results = made_up()
    said = plain(results)
    ours, *bounds = (
        100 * spread_of(results, name, "average_accuracy").mean for name in ("structured", "single_task", "joint")
    )
    assert bounds[0] > ours > bounds[1]
    single, joint = (f"{bounds[0] - ours:.1f} points more", f"{ours - bounds[1]:.1f} points less")
    assert said[2] == (
        f"Separate networks answer {bounds[0]:.1f} % right ({single}). Joint training on all images answers "
        f"{bounds[1]:.1f} % right ({joint})."
    )
    best = max(results, key=lambda name: spread_of(results, name, "average_accuracy").mean)
    assert said[3].startswith(f"Of 5 strategies, {best} has the highest accuracy (")
    assert said[3].endswith("structured takes the fewest bytes (96.8 kB).")


def test_bounds_may_be_alike_or_worse(made_up):
    (better,) = made_up(["structured"], seeds=1, shift=0.01)["structured"]
    for results, said in (
        ({"structured": [better], "joint": [better]}, "(as much)."),
        ({"structured": [better], "joint": made_up(["structured"], seeds=1)["structured"]}, "(1.0 points less)."),
    ):
        assert plain(results)[-1].endswith(said)


def test_two_strategies_need_no_ranking(made_up):
    assert len(plain(made_up(["structured", "naive"]))) == 2


def test_numbers_have_their_spread_and_no_minus_before_a_zero():
    assert words.shares(Spread(0.971, 0.004, 3)) == "97.1 ± 0.4\N{NO-BREAK SPACE}%"
    assert words.shares(Spread(0.971, None, 1)) == "97.1\N{NO-BREAK SPACE}%"
    assert words.points(Spread(-0.0001, 0.002, 3)) == "0.0 ± 0.2"
    assert words.points(Spread(0.012, None, 1)) == "+1.2"
    assert words.points(Spread(-0.012, None, 1)) == "-1.2"


def test_the_best_of_each_column_is_marked(made_up):
    lines = words.lines(made_up(["structured", "single_task", "naive"]), words.MAIN)
    marked = {column.key: [line.name for line in lines if line.cells[i][1]] for i, column in enumerate(words.MAIN)}
    assert marked["forgetting"] == ["structured", "single_task"]
    assert marked["bytes"] == ["structured"]
    assert marked["ratio"] == marked["seconds"] == []


def test_what_nobody_has_is_a_dash_and_nothing_is_marked_where_all_are_alike(made_up):
    lines = words.lines(made_up(["naive"]), words.MAIN)
    texts = dict(zip([column.key for column in words.MAIN], lines[0].cells, strict=True))
    assert texts["transfer"] == texts["ratio"] == (words.MISSING, False)
    assert not any(best for line in lines for _, best in line.cells)


@pytest.mark.parametrize(
    ("counts", "said"),
    [((3, 3), "3 seeds each"), ((1, 1), "1 seed each"), ((2, 3), "2 to 3 seeds each"), ((3,), "3 seeds")],
)
def test_seeds_are_counted(made_up, counts, said):
    results = {f"s{i}": made_up(["naive"], seeds=count)["naive"] for i, count in enumerate(counts)}
    assert words.seeds(results) == said


def test_long_names_of_tasks_become_numbers():
    assert words.labels(["0, 1", "2, 3"]) == ["0, 1", "2, 3"]
    assert words.labels(["0, 1", "airplane, automobile"]) == ["task 1", "task 2"]
