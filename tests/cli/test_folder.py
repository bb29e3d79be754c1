from __future__ import annotations

from pathlib import Path

import pytest

from structured_ensembles.cli.folder import fresh, reserved
from structured_ensembles.errors import DataError, SettingsError

from .conftest import contents


def test_a_folder_holds_its_configuration_and_stays(here):
    with reserved(Path("a/b"), "members: 4\n"):
        assert Path("a/b/config.yaml").read_text() == "members: 4\n"

    assert Path("a/b/config.yaml").exists()


def test_a_refused_run_leaves_nothing_behind(here):
    Path("a").mkdir()
    with pytest.raises(DataError), reserved(Path("a/b/c"), ""):
        raise DataError

    assert list(contents(here)) == [str(here / "a")]


def test_what_was_found_is_kept(here):
    def run():
        with reserved(Path("a"), ""):
            Path("a/state").mkdir()
            raise DataError

    with pytest.raises(DataError):
        run()
    assert Path("a/config.yaml").exists()


def test_an_interrupted_run_can_be_resumed(here):
    with pytest.raises(KeyboardInterrupt), reserved(Path("a"), ""):
        raise KeyboardInterrupt

    assert Path("a/config.yaml").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_exists_is_refused(here, kind):
    path = Path("a b")
    {"folder": path.mkdir, "file": path.touch, "link": lambda: path.symlink_to("nowhere")}[kind]()
    with pytest.raises(SettingsError, match=r"a b exists: .*--resume --out 'a b'"), reserved(path, ""):
        pass


def test_a_folder_that_cannot_be_made_is_refused(here):
    Path("file").touch()
    with pytest.raises(SettingsError, match="cannot write in file/out"), reserved(Path("file/out"), ""):
        pass

    assert list(contents(here)) == [str(here / "file")]


def test_a_fresh_folder_does_not_exist(here):
    assert fresh(Path("runs/demo")) == Path("runs/demo")
    Path("runs/demo").mkdir(parents=True)
    Path("runs/demo-2").mkdir()
    assert fresh(Path("runs/demo")) == Path("runs/demo-3")
