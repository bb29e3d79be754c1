from __future__ import annotations

from pathlib import Path

import pytest

from structured_ensembles.files.whole import write_whole


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "a.json", "{ä}")
    assert (tmp_path / "new" / "a.json").read_text(encoding="utf-8") == "{ä}"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_a_write_that_is_stopped_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_whole(path, "before")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "after")
    assert path.read_text(encoding="utf-8") == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
