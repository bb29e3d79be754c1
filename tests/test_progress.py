from __future__ import annotations

import pytest

from structured_ensembles import progress
from structured_ensembles.progress import bar, quiet, track


@pytest.fixture
def terminal(monkeypatch):
    """Standard error, as far as rich can tell."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_track_gives_every_item_and_one_final_line(capsys):
    assert list(track(range(3), "counting [things]")) == [0, 1, 2]
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("counting [things] 3 · ")


def test_track_takes_what_has_no_length(capsys):
    assert list(track((i for i in "ab"), "letters")) == ["a", "b"]
    assert "letters 2" in capsys.readouterr().err


def test_track_is_lazy():
    pulled = []

    def source():
        for i in range(3):
            pulled.append(i)
            yield i

    items = track(source(), "slowly", 3)
    assert pulled == []
    next(items)
    assert pulled == [0]
    items.close()


def test_the_last_note_is_in_the_final_line(capsys):
    with bar("member 2 of 4", 3, count=False) as shown:
        for epoch in range(3):
            shown.advance()
            shown.note(f"epoch {epoch + 1}/3")
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err.startswith("member 2 of 4 · epoch 3/3 · ")


def test_a_terminal_sees_a_bar(terminal, capsys):
    with bar("member 2 of 4", 3) as shown:
        shown.advance(3)
        shown.note("epoch 3/3")
    error = capsys.readouterr().err
    assert "member 2 of 4 · epoch 3/3" in error
    assert "3/3" in error
    assert "━" in error


def test_quiet_silences_terminals_and_files(terminal, capsys, monkeypatch):
    with quiet():
        list(track(range(3), "hidden"))
        with bar("hidden", 1) as shown:
            shown.advance()
        monkeypatch.delenv("FORCE_COLOR")
        list(track(range(3), "hidden"))
    assert capsys.readouterr().err == ""
    list(track(range(3), "shown"))
    assert "shown" in capsys.readouterr().err


def test_bars_within_a_bar_are_off(capsys):
    with bar("outer", 1):
        list(track(range(2), "inner"))
    error = capsys.readouterr().err
    assert "outer" in error
    assert "inner" not in error


def test_a_failed_loop_has_no_final_line_and_leaves_no_silence(capsys):
    with pytest.raises(ValueError, match="broken"), bar("failing", 1):
        raise ValueError("broken")
    assert capsys.readouterr().err == ""
    assert progress._silent.get() is False
