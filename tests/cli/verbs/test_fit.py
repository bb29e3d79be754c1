from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from structured_ensembles import Ensemble, StructuredEnsemble
from structured_ensembles.data.sources import load
from structured_ensembles.methods.fitting import Fittable

from ..conftest import TINY, contents, invoke, sha256

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)
LABELS = np.array([0, 1] * 4)
GOOD = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:4], "y_test": LABELS[:4]}


# --- a run that ends well ---------------------------------------------------------------------------------------------


def test_the_folder_holds_everything(finished):
    names = {path.name for path in finished.iterdir()}
    pictures = {"learning_curves.png", "reliability.png"}

    assert names == {"structured.safetensors", "single.safetensors", "config.yaml", "metrics.json", "log"} | pictures
    assert (finished / "log/structured/member-1/metrics.csv").exists()
    for name in pictures:
        with Image.open(finished / name) as picture:
            assert min(picture.size) > 300


def test_the_metrics_are_documented_and_true(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    structured = metrics["methods"]["structured"]

    assert metrics["schema"] == 1
    assert metrics["data"]["test_images"] == structured["metrics"]["examples"] == 450
    assert set(metrics["methods"]) == {"structured", "single"}
    assert structured["cost"]["bytes_on_disk"] == (finished / structured["file"]).stat().st_size
    assert structured["cost"]["bytes_on_disk"] <= metrics["whole_network"]["bytes_on_disk"]
    assert metrics["whole_network"]["bytes_on_disk"] == (finished / "single.safetensors").stat().st_size
    assert structured["rejection"]["threshold"] == Ensemble.load(finished / structured["file"]).record.summary.get(
        "rejection_threshold"
    )
    assert structured["cost"]["seconds"] > 0
    assert metrics["versions"]["torch"]


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(finished, here):
    assert invoke("fit", *TINY, "--out", "same").exit_code == 0
    assert invoke("fit", *TINY, "--out", "other", "--seed", "1").exit_code == 0

    wanted = sha256(finished / "structured.safetensors")
    assert sha256(Path("same/structured.safetensors")) == wanted
    assert sha256(Path("other/structured.safetensors")) != wanted


def test_the_written_configuration_repeats_the_run(finished, here):
    result = invoke("fit", "--config", finished / "config.yaml", "--out", "again")

    assert result.exit_code == 0
    assert Path("again/config.yaml").read_text() == (finished / "config.yaml").read_text()
    for name in ("structured.safetensors", "single.safetensors"):
        assert sha256(Path("again") / name) == sha256(finished / name)


def test_images_of_ones_own_with_everything_else_chosen(here):
    for name, grey in (("cat", 40), ("dog", 200)):
        for i in range(6):
            path = Path(f"pets/{name}/{i}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((9, 9 + (i == 0)), grey + i, np.uint8)).save(path)
    options = ["--image-size", "8", "--architecture", "mlp", "--network-argument", "width=16", "--keep", "0.5"]
    result = invoke("fit", "--data", "pets", *options, *TINY, "--batch-size", "4", "--diversity", "mmd=0.1")

    assert result.exit_code == 0, result.output
    assert "Note: " in result.stderr
    record = Ensemble.load("runs/pets-mlp/structured.safetensors").record
    assert record.classes == ("cat", "dog")
    assert record.network.arguments == {"width": 16}
    assert "whole network" in result.stdout


# --- going on with a run ----------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(here, monkeypatch):
    """A run that was interrupted before its second member."""
    original = Fittable.train_member

    def interrupt(self, network, fold, member):
        if member == 1:
            raise KeyboardInterrupt
        return original(self, network, fold, member)

    with monkeypatch.context() as patched:
        patched.setattr(Fittable, "train_member", interrupt)
        result = invoke("fit", *TINY, "--against", "single", "--out", "my run")
    assert result.exit_code == 130
    assert "structens fit --resume --out 'my run'" in result.stdout
    return Path("my run")


def test_a_stopped_run_goes_on_to_the_same_bytes(stopped, finished):
    assert (stopped / "state/structured/member-0/training.ckpt").exists()
    assert invoke("fit", "--resume", "--out", stopped).exit_code == 0

    for name in ("structured.safetensors", "single.safetensors", "config.yaml"):
        assert sha256(stopped / name) == sha256(finished / name)
    assert not (stopped / "state").exists()
    assert json.loads((stopped / "metrics.json").read_text())["methods"]["structured"]["cost"]["seconds"] is None


def test_a_stopped_run_goes_on_only_as_it_began(stopped, refused):
    error = refused("fit", "--resume", "--out", stopped, *TINY, "--against", "single", "--seed", "3")

    assert "seed (was 0, now 3)" in error
    assert "members" not in error.split("configuration:")[1]


def test_options_may_be_given_again_as_long_as_they_say_the_same(stopped, refused):
    assert "members (was 2, now 3)" in refused("fit", "--resume", "--out", stopped, "--members", "3")
    assert invoke("fit", "--resume", "--out", stopped, "--members", "2").exit_code == 0


def test_a_finished_run_prints_its_result_again(finished):
    before = contents(finished)
    result = invoke("fit", "--resume", "--out", finished)

    assert result.exit_code == 0
    assert "single network" in result.stdout
    assert contents(finished) == before


@pytest.fixture
def copied(finished, here):
    """A copy of the finished run."""
    return shutil.copytree(finished, here / "copy")


def test_lost_measurements_are_made_again_of_the_same_ensemble(copied, finished, monkeypatch):
    (copied / "metrics.json").unlink()
    monkeypatch.setattr(StructuredEnsemble, "fit", None)
    assert invoke("fit", "--resume", "--out", copied).exit_code == 0
    before, after = (json.loads((folder / "metrics.json").read_text())["methods"] for folder in (finished, copied))
    for entry in (*before.values(), *after.values()):
        entry["cost"].pop("seconds")
    assert after == before
    assert sha256(copied / "learning_curves.png") == sha256(finished / "learning_curves.png")


def test_lost_measurements_are_not_made_on_other_images(finished, refused):
    Path("copy").mkdir()
    shutil.copy(finished / "single.safetensors", "copy")
    shutil.copy(finished / "structured.safetensors", "copy")
    text = (finished / "config.yaml").read_text()
    digits = load("digits")
    arrays = {"x_train": digits.train.images, "y_train": digits.train.labels}
    arrays |= {"x_test": digits.test.images[:400], "y_test": digits.test.labels[:400]}
    np.savez("other.npz", **{name: array.numpy() for name, array in arrays.items()})
    Path("copy/config.yaml").write_text(text.replace("data: digits", "data: other.npz"))
    assert "was measured on other images than these of other" in refused("fit", "--resume", "--out", "copy")


def test_a_lost_ensemble_is_made_again(copied, finished):
    (copied / "structured.safetensors").unlink()
    result = invoke("fit", "--resume", "--out", copied)
    assert result.exit_code == 0
    assert sha256(copied / "structured.safetensors") == sha256(finished / "structured.safetensors")


def test_a_preset_that_would_change_nothing_is_refused(finished, refused):
    for words in (["--config", finished / "config.yaml"], ["--resume", "--out", finished]):
        assert "preset published would change nothing" in refused("fit", *words, "--preset", "published")
    assert invoke("fit", "--resume", "--out", finished, "--preset", "default").exit_code == 0


def test_there_must_be_a_run_to_resume(refused):
    assert "there is no run in nowhere" in refused("fit", "--resume", "--out", "nowhere")


def test_damaged_results_are_refused(finished, here, refused):
    Path("run").mkdir()
    Path("run/config.yaml").write_text((finished / "config.yaml").read_text())
    Path("run/metrics.json").write_text("{")

    assert "run/metrics.json is damaged" in refused("fit", "--resume", "--out", "run")


@pytest.mark.slow  # a process of its own
def test_killed_without_warning_and_resumed_it_ends_the_same(here, environment):
    options = ["fit", "--search-steps", "2", "--members", "2", "--epochs", "8", "--out"]
    command = [sys.executable, "-m", "structured_ensembles.cli", *options, "killed"]
    with subprocess.Popen(command, env=environment) as process:  # noqa: S603
        checkpoint = Path("killed/state/structured/member-0/training.ckpt")
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not Path("killed/structured.safetensors").exists()

    assert invoke("fit", "--resume", "--out", "killed").exit_code == 0
    assert invoke(*options, "whole").exit_code == 0
    assert sha256(Path("killed/structured.safetensors")) == sha256(Path("whole/structured.safetensors"))


# --- what is refused, before anything is written ----------------------------------------------------------------------


def test_an_existing_folder_is_refused(refused):
    Path("out").mkdir()

    assert "the output folder out exists" in refused("fit", *TINY, "--out", "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(refused):
    Path("closed").mkdir(mode=0o500)

    assert "cannot write in closed/out" in refused("fit", *TINY, "--out", "closed/out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--members", "0"], "members 0 must be"),
        (["--keep", "0"], r"keep 0.0 is outside (0, 1]"),
        (["--keep", "1.5"], r"keep 1.5 is outside (0, 1]"),
        (["--keep", "0.5", "--budget", "1x"], "give either budget or keep"),
        (["--budget", "1kB"], "the smallest possible ensemble"),
        (["--budget", "lots"], "budget 'lots' is not understood"),
        (["--architecture", "smal_cnn"], "did you mean 'small_cnn'"),
        (["--network-argument", "depth=3"], "unexpected keyword argument 'depth'"),
        (["--diversity", "overlapp=1"], "did you mean 'overlap'"),
        (["--scope", "privat"], "did you mean 'private'"),
        (["--preset", "publishd"], "did you mean 'published'"),
        (["--against", "singel"], "did you mean 'single'"),
        (["--data", "digitz"], "did you mean 'digits'"),
        (["--data", "no/such.npz"], "does not exist"),
        (["--search-batch-size", "3"], "cannot be divided among 4 members"),
        (["--held-out", "1"], "held_out 1.0 is outside (0, 1)"),
        (["--epochs", "0"], "epochs 0 must be at least 1"),
        (["--learning-rate", "-1"], "learning_rate -1.0 must be above 0"),
        (["--seed", "-1"], "seed -1 is negative"),
        (["--image-size", "0"], "image_size is 0"),
        (["--architecture", "torchvision:resnet18"], "takes images with 3 channels"),
        (["--config", "no.yaml"], "cannot be read"),
    ],
)
def test_wrong_options_are_refused(refused, options, message):
    assert message in refused("fit", *options)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": None}, "has no x_train"),
        ({"y_train": LABELS * 0}, "one class only"),
        ({"y_train": LABELS - 1}, "negative label"),
        ({"y_train": LABELS * 1.0}, "labels must be integers"),
        ({"y_train": LABELS[:5]}, "8 images, but y_train 5 labels"),
        ({"y_test": LABELS[:4] + 2}, "the 2 training classes are 0 to 1"),
        ({"x_train": np.where(IMAGES.max() == IMAGES, np.nan, IMAGES / 255)}, "NaN or infinite pixels, the first at"),
        ({"x_test": IMAGES[:4, :6]}, "they must agree"),
        ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "0 labels"),
    ],
)
def test_wrong_arrays_are_refused(refused, arrays, message):
    given = GOOD | arrays
    np.savez("some.npz", **{name: array for name, array in given.items() if array is not None})

    assert message in refused("fit", "--data", "some.npz", *TINY)


@pytest.mark.parametrize(("size", "message"), [(0, "is empty"), (300, "cut short")])
def test_a_truncated_archive_is_refused(refused, size, message):
    np.savez("some.npz", **GOOD)
    Path("some.npz").write_bytes(Path("some.npz").read_bytes()[:size])

    assert message in refused("fit", "--data", "some.npz", *TINY)


@pytest.mark.parametrize(("classes", "message"), [([2], "one class only"), ([2, 0], "has no images"), ([], "no class")])
def test_a_folder_without_classes_is_refused(refused, classes, message):
    Path("images").mkdir()
    for name, count in enumerate(classes):
        Path(f"images/{name}").mkdir()
        for i in range(count):
            Image.fromarray(IMAGES[i]).save(f"images/{name}/{i}.png")

    assert message in refused("fit", "--data", "images", *TINY)


def test_a_learning_rate_that_explodes_says_so(here):
    result = invoke("fit", *TINY, "--learning-rate", "1e30")

    assert result.exit_code == 2
    assert "learning_rate 1e+30 is too large" in result.stderr
