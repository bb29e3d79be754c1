from __future__ import annotations

import pytest

from structured_ensembles.cli.printing import note, rejection, say, table


def test_words_are_never_broken(capsys):
    word = "a" * 150
    say(f"see {word} for more")

    assert word in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("count", "lines"), [(0, 0), (3, 3), (4, 3), (50, 3)])
def test_many_notices_are_cut_short(capsys, count, lines):
    note([f"thing {i}" for i in range(count)])
    shown = capsys.readouterr().err.splitlines()

    assert len(shown) == lines
    if count > lines:
        assert shown[-1] == f"Note: and {count - 2} more."


def test_a_table_shows_brackets_and_long_cells_whole(capsys):
    table(("a", "b"), [["[bold]x", "y" * 60]])
    out = capsys.readouterr().out

    assert "[bold]x" in out
    assert "y" * 60 in out


def entry(**rejection_report):
    metrics = {"examples": 200, "accuracy": 0.95}
    return {"name": "it", "metrics": metrics, "rejection": {"threshold": 0.5, **rejection_report}}


def test_abstaining_is_told_in_images():
    told = rejection(entry(rejected_share=0.1, wrong_share_of_rejected=0.4, accuracy_of_kept=178 / 180))

    assert "on 20 of 200 test images, 8 of its 10 mistakes among them" in told
    assert "98.89%" in told


def test_abstaining_from_nothing_or_from_everything_is_told_too():
    nothing = rejection(entry(rejected_share=0.0, wrong_share_of_rejected=None, accuracy_of_kept=0.95))
    everything = rejection(entry(rejected_share=1.0, wrong_share_of_rejected=0.05, accuracy_of_kept=None))

    assert "on 0 of 200 test images, 0 of its 10 mistakes" in nothing
    assert everything.endswith("10 of its 10 mistakes among them.")
    assert "no threshold" in rejection({"name": "it", "metrics": {}, "rejection": None})
