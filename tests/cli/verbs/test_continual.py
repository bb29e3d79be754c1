from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from structured_ensembles.continual.strategies.naive import Naive
from structured_ensembles.experiments import streams
from structured_ensembles.experiments.grids import Work
from structured_ensembles.options.catalogue import STRATEGIES

from ..conftest import contents, invoke

QUICK = ("--epochs", "1", "--search-steps", "1", "--architecture", "mlp", "--network-argument", "width=8")
TINY = (*QUICK, "--tasks", "2", "--jobs", "1", "--strategies", "structured,naive")
TABLES = {"results.csv", "results.json", "steps.csv", "accuracies.csv", "summary.md", "continual.yaml", "stream.html"}


def cells(folder: Path | str) -> set[str]:
    return {path.stem for path in (Path(folder) / "cells").iterdir()}


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """The folder of a finished tiny grid, and what was printed."""
    folder = tmp_path_factory.mktemp("streamed") / "grid"
    result = invoke("continual", *TINY, "--out", folder)
    assert result.exit_code == 0, result.output
    return folder, result.stdout


@pytest.fixture
def grid(streamed, here):
    """A copy of that folder, in the current one."""
    shutil.copytree(streamed[0], "grid")
    return Path("grid")


# --- a grid that ends well --------------------------------------------------------------------------------------------


def test_the_folder_holds_everything(streamed):
    folder, printed = streamed

    assert {path.name for path in folder.iterdir()} >= TABLES | {"accuracy.png", "memory.png", "owners.png"}
    assert cells(folder) == {"structured-seed0", "naive-seed0"}
    stored = yaml.safe_load((folder / "continual.yaml").read_text())
    assert stored.items() >= {"strategies": ["structured", "naive"], "seeds": [0], "tasks": 2, "epochs": 1}.items()
    assert stored.keys().isdisjoint(("sources", "image_size", "log"))
    assert "2 tasks of 603 to 608 training images each: 0 ... 4; 5 ... 9." in printed
    assert "2 strategies, 2 runs, 1 at once" in printed
    assert "structens continual --resume" in printed
    for path in folder.iterdir():
        assert path.suffix in {"", ".sha256"} or path.name in printed


def test_the_structured_strategy_forgets_nothing(streamed):
    structured, naive = json.loads((streamed[0] / "results.json").read_text())

    assert structured["proved"]
    assert structured["steps"][0]["accuracies"][0] == structured["steps"][1]["accuracies"][0]
    assert not naive["proved"]
    assert naive["owners"] is None


def test_its_name_tells_what_is_learned(here, monkeypatch):
    made = []
    monkeypatch.setattr(Work, "carry_out", lambda _work, _sources, folder, _jobs: made.append(str(folder)) or [])
    np.savez("a.npz", **arrays(0))
    np.savez("b.npz", **arrays(1))
    for options in ([], ["--stream", "rotated"], ["--sources", "a.npz,b.npz"]):
        assert invoke("continual", *QUICK, *options).exit_code == 0
    assert made == [f"runs/continual-{name}-mlp" for name in ("digits", "digits-rotated", "a-b")]


def arrays(seed: int) -> dict[str, np.ndarray]:
    """Noise of four classes."""
    draw = np.random.default_rng(seed)
    sizes = {"train": 80, "test": 20}
    pixels = {f"x_{part}": draw.integers(0, 256, (count, 8, 8), dtype=np.uint8) for part, count in sizes.items()}
    return pixels | {f"y_{part}": np.arange(count) % 4 for part, count in sizes.items()}


def test_several_sources_are_learned_one_after_the_other(here):
    np.savez("a.npz", **arrays(0))
    np.savez("b.npz", **arrays(1))
    result = invoke(
        "continual", *QUICK, "--sources", "a.npz,b.npz", "--strategies", "naive", "--jobs", "1", "--out", "g"
    )

    assert result.exit_code == 0, result.output
    steps = json.loads(Path("g/results.json").read_text())[0]["steps"]
    assert [step["task"] for step in steps] == ["a.npz", "b.npz"]
    assert "tasks" not in yaml.safe_load(Path("g/continual.yaml").read_text())


def test_a_failed_run_is_told_and_stops_nobody(here, monkeypatch):
    def learn(*_):
        raise RuntimeError("it\nbroke")

    monkeypatch.setattr(Naive, "_learn", learn)
    result = invoke("continual", *TINY, "--out", "grid")

    assert result.exit_code == 0, result.output
    assert "failed: naive, seed 0: failed with RuntimeError: it broke" in result.stdout
    assert [entry["error"] is None for entry in json.loads(Path("grid/results.json").read_text())] == [True, False]

    alone = invoke("continual", *TINY, "--strategies", "naive", "--out", "alone")
    assert alone.exit_code == 1
    assert "Every run failed. The first: failed with RuntimeError: it broke" in alone.stderr


# --- going on ---------------------------------------------------------------------------------------------------------


def test_a_finished_grid_is_told_again_without_work(grid, monkeypatch):
    monkeypatch.setattr(streams, "learn_cell", lambda *_: pytest.fail("this was done already"))
    before = contents(grid / "cells")
    result = invoke("continual", "--resume", "--out", "grid", "--jobs", "1")

    assert result.exit_code == 0, result.output
    assert contents(grid / "cells") == before


def test_strategies_and_seeds_are_added(grid):
    result = invoke(
        "continual", "--resume", "--seeds", "1-1", "--strategies", "single_task", "--out", "grid", "--jobs", "1"
    )

    assert result.exit_code == 0, result.output
    names = ("structured", "naive", "single_task")
    assert cells(grid) == {f"{name}-seed{seed}" for name in names for seed in (0, 1)}
    assert yaml.safe_load((grid / "continual.yaml").read_text())["seeds"] == [0, 1]


def test_a_grid_can_be_repeated_from_its_configuration(grid):
    result = invoke("continual", "--config", grid / "continual.yaml", "--jobs", "1", "--out", "again")

    assert result.exit_code == 0, result.output
    assert Path("again/continual.yaml").read_text() == (grid / "continual.yaml").read_text()
    assert Path("again/accuracies.csv").read_text() == (grid / "accuracies.csv").read_text()


def test_an_interrupt_says_how_to_go_on(here, monkeypatch):
    def learn(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Naive, "_learn", learn)
    result = invoke("continual", *TINY, "--out", "my grid")

    assert result.exit_code == 130
    assert "structens continual --resume --out 'my grid'" in result.output
    assert cells("my grid") == {"structured-seed0"}


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategies", "packnett"], "unknown strategy 'packnett': did you mean 'packnet'"),
        (["--strategies", "naive,naive"], "strategies must be at least one, and none twice"),
        (["--tasks", "6"], "10 classes do not make 6 tasks: a task needs 2 classes at least; ask for 5 tasks or fewer"),
        (["--tasks", "1"], "tasks 1 must be at least 2"),
        (["--tasks", "1", "--stream", "permuted"], "tasks 1 must be at least 2"),
        (["--stream", "shuffled"], "unknown stream 'shuffled'"),
        (["--sources", "digits,digits"], "has the training images of task"),
        (["--sources", "digits"], "sources digits is one task"),
        (["--sources", "digits,digits", "--data", "digits", "--tasks", "3"], "leave out data, tasks"),
        (["--data", "digitz"], "did you mean 'digits'"),
        (["--architecture", "mlpp"], "did you mean 'mlp'"),
        (["--seeds", "many"], "'many' is not understood"),
        (["--jobs", "0"], "jobs 0 must be at least 1"),
        (["--epochs", "0"], "epochs 0 must be at least 1"),
        (["--keep", "2"], "keep 2.0 is outside (0, 1]"),
        (["--rule", "per_cost"], "unknown rule 'per_cost'"),
        (["--cross-block", "one"], "unknown cross-block 'one'"),
        (["--resume"], "--resume needs --out"),
        (["--resume", "--out", "nowhere"], "there is no comparison in nowhere to go on with (no continual.yaml)"),
        (["--config", "no.yaml"], "cannot be read"),
    ],
)
def test_wrong_options_are_refused(refused, options, message):
    assert message in refused("continual", *options)


def test_a_folder_that_exists_is_refused(grid, refused):
    assert "go on with the run in it: structens continual --resume --out grid" in refused(
        "continual", *TINY, "--out", "grid"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--epochs", "2"], "epochs (was 1, now 2)"), (["--norms", "task"], "norms (was owner, now task)")],
)
def test_another_configuration_is_refused(grid, refused, options, message):
    assert message in refused("continual", "--resume", *options, "--out", "grid")


def test_the_help_has_examples_and_every_strategy():
    result = invoke("continual", "--help")

    assert result.exit_code == 0
    assert "structens continual --resume --seeds 5" in result.output
    for name in STRATEGIES:
        assert name in result.output
