from __future__ import annotations

from pathlib import Path

import pytest

from structured_ensembles.files import whole as files
from structured_ensembles.files.whole import whole, write_whole


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


@pytest.mark.parametrize("content", ["text", b"bytes"])
def test_it_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    there = []
    monkeypatch.setattr(files.os, "fsync", lambda _: there.append((tmp_path / "a").exists()))
    write_whole(tmp_path / "a", content)
    assert there == [False]
    assert (tmp_path / "a").exists()


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, b"before")

    def fail() -> None:
        with whole(path) as partial:
            partial.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
