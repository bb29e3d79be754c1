from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from structured_ensembles.cli.configuration import comparison
from structured_ensembles.errors import SettingsError
from structured_ensembles.experiments.comparison import grid as grid_module
from structured_ensembles.methods.narrow import NarrowEnsemble
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.options.catalogue import METHODS
from structured_ensembles.options.choices import Preset
from structured_ensembles.options.plans import ARMS

from ..conftest import contents, invoke

QUICK = ("--epochs", "1", "--architecture", "mlp", "--network-argument", "width=8", "--members", "2", "--jobs", "1")
TINY = (*QUICK, "--methods", "single,narrow", "--seeds", "1")
TABLES = {"results.csv", "results.json", "summary.md"}
PICTURES = {"cost.png", "training_cost.png", "diversity.png"}


def cells(folder: Path | str) -> set[str]:
    return {path.stem for path in (Path(folder) / "cells").iterdir()}


def rows(folder: Path | str) -> list[dict]:
    return json.loads((Path(folder) / "results.json").read_text())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The folder of a finished tiny comparison, and what was printed."""
    folder = tmp_path_factory.mktemp("compared") / "grid"
    result = invoke("compare", *TINY, "--out", folder)
    assert result.exit_code == 0, result.output
    return folder, result.stdout


@pytest.fixture
def grid(compared, here):
    """A copy of that folder, in the current one."""
    shutil.copytree(compared[0], "grid")
    return Path("grid")


# --- a comparison that ends well --------------------------------------------------------------------------------------


def test_the_folder_holds_everything(compared):
    folder, printed = compared

    assert {path.name for path in folder.iterdir()} == {
        "comparison.yaml",
        "data.sha256",
        "cells",
        "state",
    } | TABLES | PICTURES
    assert cells(folder) == {"single-1-own-seed0", "narrow-2-1x-seed0"}
    stored = yaml.safe_load((folder / "comparison.yaml").read_text())
    axes = {"methods": ["single", "narrow"], "members": [2], "budgets": ["1x"], "seeds": [0]}
    assert stored.items() >= {**axes, "epochs": 1, "architecture": "mlp"}.items()
    assert stored.keys().isdisjoint(("seed", "budget", "keep", "against"))
    assert not list((folder / "state").iterdir())
    for name in PICTURES:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
    assert "2 methods, 2 runs, 1 at once" in printed
    for name in (*TABLES, *PICTURES):
        assert name in printed


def test_the_table_has_a_row_a_run(compared):
    single, narrow = rows(compared[0])

    assert single["cell"] == {"method": "single", "members": 1, "budget": "", "seed": 0}
    assert narrow["cell"] == {"method": "narrow", "members": 2, "budget": "1x", "seed": 0}
    assert single["error"] is narrow["error"] is None
    assert narrow["values"]["bytes_on_disk"] <= single["values"]["bytes_on_disk"]
    head, *lines = (compared[0] / "results.csv").read_text().splitlines()
    assert head.startswith("data,architecture,epochs,method,members,budget,seed,accuracy,nll,ece,brier,")
    assert [line.split(",")[:7] for line in lines] == [
        ["digits", "mlp", "1", "single", "1", "", "0"],
        ["digits", "mlp", "1", "narrow", "2", "1x", "0"],
    ]
    assert "#### Against `narrow`" in (compared[0] / "summary.md").read_text()


def test_its_name_tells_what_is_compared(here):
    assert invoke("compare", *QUICK, "--methods", "single", "--seeds", "1").exit_code == 0
    assert cells("runs/compare-digits-mlp") == {"single-1-own-seed0"}


def test_one_method_alone_has_pictures_of_what_there_is(here):
    result = invoke("compare", *QUICK, "--methods", "single", "--seeds", "1", "--out", "grid")

    assert result.exit_code == 0, result.output
    assert {path.name for path in Path("grid").iterdir()} >= TABLES | {"cost.png", "training_cost.png"}
    assert not Path("grid/diversity.png").exists()
    assert "diversity.png" not in result.stdout


def test_failed_runs_are_in_the_table_and_cost_nothing_else(here, monkeypatch):
    def build(*_):
        raise RuntimeError("it\nbroke")

    monkeypatch.setattr(NarrowEnsemble, "build", build)
    result = invoke("compare", *TINY, "--out", "grid")

    assert result.exit_code == 0, result.output
    assert [row["error"] for row in rows("grid")] == [None, "failed with RuntimeError: it broke"]
    assert "failed with RuntimeError: it broke" in result.stdout
    assert "failed with RuntimeError: it broke" in Path("grid/summary.md").read_text()
    assert Path("grid/cost.png").exists()


def test_if_everything_failed_there_are_tables_and_no_word_of_pictures(here, monkeypatch):
    monkeypatch.setattr(SingleNetwork, "build", lambda *_: 1 / 0)
    result = invoke("compare", *QUICK, "--methods", "single", "--seeds", "2", "--out", "grid")

    assert result.exit_code == 1, result.output
    assert "Every run failed. The first: failed with ZeroDivisionError" in result.stderr
    assert "structens compare --resume --out grid" in result.stderr
    assert len(rows("grid")) == 2
    assert "summary.md" in result.stdout
    assert "cost.png" not in result.stdout


# --- going on ---------------------------------------------------------------------------------------------------------


def test_a_finished_comparison_is_told_again_without_work(grid, monkeypatch):
    monkeypatch.setattr(grid_module, "fit_cell", lambda *_: pytest.fail("this was done already"))
    before = contents(grid / "cells")
    result = invoke("compare", "--resume", "--out", "grid", "--jobs", "1")

    assert result.exit_code == 0, result.output
    assert contents(grid / "cells") == before


def test_seeds_and_methods_are_added(grid):
    before = contents(grid / "cells")
    result = invoke("compare", "--resume", "--seeds", "2", "--out", "grid", "--jobs", "1")

    assert result.exit_code == 0, result.output
    assert cells(grid) == {f"{name}-seed{seed}" for name in ("single-1-own", "narrow-2-1x") for seed in (0, 1)}
    assert contents(grid / "cells").items() >= before.items()
    assert yaml.safe_load((grid / "comparison.yaml").read_text())["seeds"] == [0, 1]
    assert len(rows(grid)) == 4
    assert invoke("compare", "--resume", "--methods", "deep", "--out", "grid", "--jobs", "1").exit_code == 0
    assert {row["cell"]["method"] for row in rows(grid)} == {"single", "narrow", "deep"}


def test_what_was_run_stays_in_the_table_when_other_seeds_are_asked_for(grid):
    assert invoke("compare", "--resume", "--seeds", "7-7", "--out", "grid", "--jobs", "1").exit_code == 0

    assert [row["cell"]["seed"] for row in rows(grid)] == [0, 0, 7, 7]
    assert yaml.safe_load((grid / "comparison.yaml").read_text())["seeds"] == [0, 7]


def test_the_same_options_may_be_repeated(grid):
    assert invoke("compare", *TINY, "--resume", "--out", "grid").exit_code == 0


def test_published_settings_can_be_gone_on_with_by_the_same_words(here):
    options = (
        "--methods",
        "single",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--preset",
        "published",
        "--jobs",
        "1",
        "--out",
        "g",
    )

    assert invoke("compare", *options).exit_code == 0
    assert invoke("compare", *options, "--resume").exit_code == 0
    assert invoke("compare", *options[:6], "--out", "g", "--resume").exit_code == 0
    error = invoke("compare", "--preset", "default", "--out", "g", "--resume").stderr
    assert "preset default would change nothing: the configuration names every setting" in error


def test_two_arms_that_would_be_the_same_are_not_both_run(refused):
    error = refused("compare", "--preset", "published", "--methods", "structured,published", "--out", "g")
    assert "structured and published are one method: leave one of them out" in error
    everything = comparison({"preset": Preset.PUBLISHED})
    assert set(ARMS) - set(everything.methods) == {"published"}
    assert comparison({"methods": ("all",)}).methods == comparison({}).methods == ARMS


def test_an_interrupt_says_how_to_go_on(here, monkeypatch):
    def build(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NarrowEnsemble, "build", build)
        result = invoke("compare", *TINY, "--out", "my grid")
    assert result.exit_code == 130
    assert "structens compare --resume --out 'my grid'" in result.output
    assert cells("my grid") == {"single-1-own-seed0"}

    assert invoke("compare", "--resume", "--out", "my grid", "--jobs", "1").exit_code == 0
    assert [row["error"] for row in rows("my grid")] == [None, None]


def test_what_stops_before_the_first_result_can_be_resumed(here, monkeypatch):
    """Workers that were killed while they read the data, for one."""

    def refuse(*_):
        raise SettingsError("a process was killed")

    with monkeypatch.context() as patch:
        patch.setattr(grid_module, "fit_cell", lambda *_: refuse())
        assert invoke("compare", *TINY, "--out", "grid").exit_code == 2

    result = invoke("compare", "--resume", "--out", "grid", "--jobs", "1")
    assert result.exit_code == 0, result.output


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "narow"], "unknown method 'narow': did you mean 'narrow'"),
        (["--methods", "single,,deep"], "is not a text"),
        (["--methods", "single,single"], "methods must be at least one, and none twice: single, single"),
        (["--methods", "all,single"], "methods all names every one already"),
        (["--members", "0"], "members 0 must be at least 1"),
        (["--members", "two"], "'two' is not a whole number"),
        (["--budgets", "lots"], "budget 'lots' is not understood"),
        (["--budgets", "1x,1.0x"], "budgets must be at least one, and none twice: 1x, 1.0x"),
        (["--seeds", "0"], "'0' is not understood: write 5 (how many)"),
        (["--seeds", "9-5"], "'9-5' is not understood"),
        (["--seeds", "3,3"], "none twice"),
        (["--seeds", "-1"], "'-1' is not understood: write 5 (how many), 5-9 or 3,7 (which)"),
        (["--seeds", "many"], "'many' is not understood"),
        (["--jobs", "0"], "jobs 0 must be at least 1"),
        (["--epochs", "0"], "epochs 0 must be at least 1"),
        (["--architecture", "mlpp"], "did you mean 'mlp'"),
        (["--data", "digitz"], "did you mean 'digits'"),
        (["--resume"], "--resume needs --out"),
        (["--resume", "--out", "nowhere"], "there is no comparison in nowhere to go on with"),
        (["--config", "no.yaml"], "cannot be read"),
    ],
)
def test_wrong_options_are_refused(refused, options, message):
    assert message in refused("compare", *options)


def test_a_folder_that_exists_is_refused(grid, refused):
    assert "go on with the run in it: structens compare --resume --out grid" in refused(
        "compare", *TINY, "--out", "grid"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "2"], "epochs (was 1, now 2)"),
        (["--architecture", "small_cnn"], "architecture (was mlp, now small_cnn)"),
    ],
)
def test_another_configuration_is_refused(grid, refused, options, message):
    text = refused("compare", *TINY, *options, "--resume", "--out", "grid")

    assert "cannot go on with another configuration" in text
    assert message in text


def test_an_unknown_method_is_refused_when_going_on(grid, refused):
    text = refused("compare", "--resume", "--methods", "singel", "--out", "grid")

    assert "unknown method 'singel': did you mean 'single'" in text


@pytest.mark.parametrize("content", ["", "[]", "7", "a: b: c", "[" * 10_000, "members: 2\nmembers: 4\nmembrs: 3"])
def test_a_damaged_configuration_is_refused(grid, refused, content):
    (grid / "comparison.yaml").write_text(content)

    assert "comparison.yaml" in refused("compare", "--resume", "--out", "grid")


@pytest.mark.parametrize(
    ("axis", "value", "message"),
    [
        ("methods", [], "methods must be at least one"),
        ("methods", [5], "5 is not a text"),
        ("methods", ["singel"], "did you mean 'single'"),
        ("members", [0.5], "0.5 is not a whole number"),
        ("members", [True], "True is not a whole number"),
        ("budgets", [1], "1 is not a text"),
        ("budgets", ["lots"], "budget 'lots' is not understood"),
        ("seeds", [0.5], "0.5 is not a whole number"),
        ("seeds", [[0]], "[0] is not a whole number"),
        ("seeds", None, "seeds"),
        ("seed", 3, "unknown key of grid/comparison.yaml 'seed'"),
        ("budget", "2x", "did you mean 'budgets'"),
    ],
)
def test_a_configuration_with_wrong_values_is_refused(grid, refused, axis, value, message):
    path = grid / "comparison.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {axis: value}))

    assert message in refused("compare", "--resume", "--out", "grid")


def test_a_comparison_can_be_repeated_from_its_configuration(grid):
    result = invoke("compare", "--config", grid / "comparison.yaml", "--jobs", "1", "--out", "again")

    assert result.exit_code == 0, result.output
    assert Path("again/comparison.yaml").read_text() == (grid / "comparison.yaml").read_text()
    first, again = (
        [{k: v for k, v in row["values"].items() if k != "seconds"} for row in rows(f)] for f in (grid, "again")
    )
    assert first == again


def test_a_fit_does_not_go_on_with_a_comparison(grid, refused):
    assert "there is no run in grid" in refused("fit", "--resume", "--out", "grid")


def test_other_images_are_refused_when_going_on(grid, refused):
    (grid / "data.sha256").write_text("0" * 64)

    assert "holds results on other images" in refused("compare", "--resume", "--seeds", "2", "--out", "grid")


def test_a_damaged_cell_is_named(grid):
    path = grid / "cells/narrow-2-1x-seed0.json"
    path.write_text("{")
    result = invoke("compare", "--resume", "--out", "grid", "--jobs", "1")

    assert result.exit_code == 2
    assert "narrow-2-1x-seed0.json is damaged" in result.stderr
    assert "delete it to run that cell again" in result.stderr
    path.unlink()
    assert invoke("compare", "--resume", "--out", "grid", "--jobs", "1").exit_code == 0


# --- help ------------------------------------------------------------------------------------------------------------


def test_the_help_has_examples_and_every_method():
    result = invoke("compare", "--help")

    assert result.exit_code == 0
    assert "structens compare --resume --out runs/grid" in result.output
    for name in (*METHODS, "published"):
        assert name in result.output
    assert "--keep" not in result.output  # a grid has budgets instead
