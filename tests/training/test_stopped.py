"""Trainings that were stopped: they go on to the same bits, and only as they began."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional

from structured_ensembles.errors import ArtefactError, SettingsError
from structured_ensembles.options.choices import Augmentation, Log
from structured_ensembles.progress import quiet
from structured_ensembles.training.loop import train

from .conftest import HaltError, Halting, assert_equal, network, short

VARIED = short(augmentation=Augmentation.CROP_FLIP)


@pytest.fixture(scope="module")
def whole(sets):
    """The training that nothing stopped."""
    with quiet():
        return train(network(), *sets, VARIED, seed=5)


@pytest.mark.parametrize("calls", [0, 5, 7, 8, 9, 21, 35])
@pytest.mark.parametrize("error", [HaltError, KeyboardInterrupt])
def test_a_killed_training_ends_bit_identical(sets, whole, tmp_path, calls, error):
    # 6 batches of training and 3 of measuring an epoch: killed at the start, within, between and at the end of epochs
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(error):
        train(network(), *sets, VARIED, seed=5, directory=tmp_path, loss=Halting(calls, error))
    assert signal.getsignal(signal.SIGINT) == handler
    assert_equal(train(network(), *sets, VARIED, seed=5, directory=tmp_path), whole)


def test_it_may_be_killed_again_and_again(sets, tmp_path):
    whole, killed = train(network(), *sets, short(), seed=5), 0
    for _ in range(20):
        try:
            trained = train(network(), *sets, short(), seed=5, directory=tmp_path, loss=Halting(13))
            break
        except HaltError:
            killed += 1
    assert killed >= 2
    assert_equal(trained, whole)


def test_with_workers_it_goes_on_all_the_same(sets, tmp_path):
    settings = short(epochs=2, num_workers=1)
    whole = train(network(), *sets, settings, seed=5)
    with pytest.raises(HaltError):
        train(network(), *sets, settings, seed=5, directory=tmp_path, loss=Halting(12))
    assert_equal(train(network(), *sets, settings, seed=5, directory=tmp_path), whole)


def test_a_real_ctrl_c_reaches_the_caller(sets):
    def interrupting(logits, labels):
        os.kill(os.getpid(), signal.SIGINT)
        return functional.cross_entropy(logits, labels)

    # A test run in the background of a shell ignores the signal; a user's program does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(network(), *sets, short(), seed=0, loss=interrupting)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_real_sigterm_ends_with_its_own_status(sets):
    def terminating(logits, labels):
        os.kill(os.getpid(), signal.SIGTERM)
        return functional.cross_entropy(logits, labels)

    with pytest.raises(SystemExit) as stop:
        train(network(), *sets, short(), seed=0, loss=terminating)
    assert stop.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_users_own_exit_stays_one(sets):
    with pytest.raises(SystemExit):
        train(network(), *sets, short(), seed=0, loss=Halting(3, SystemExit))


def test_the_csv_log_is_whole_after_a_resume(sets, tmp_path):
    with pytest.raises(HaltError):
        train(network(), *sets, short(), seed=5, directory=tmp_path, loss=Halting(21))
    trained = train(network(), *sets, short(), seed=5, directory=tmp_path)
    header, *lines = (tmp_path / "log" / "metrics.csv").read_text().splitlines()
    names = header.split(",")
    logged = [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines]
    assert [{name: one[name] for name in trained.history[0]} for one in logged] == list(trained.history)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "training.ckpt"]


def test_the_log_may_be_left_out_or_be_of_tensorboard(sets, tmp_path):
    train(network(), *sets, short(epochs=1, log=Log.NONE), seed=0, directory=tmp_path / "none")
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["training.ckpt"]
    pytest.importorskip("tensorboard")
    train(network(), *sets, short(epochs=1, log=Log.TENSORBOARD), seed=0, directory=tmp_path / "board")
    assert list((tmp_path / "board" / "log").glob("events*"))


def test_a_missing_tensorboard_is_named(sets, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="tensorboard needs a package: pip install"):
        train(network(), *sets, short(log=Log.TENSORBOARD), seed=0)


def test_another_training_in_the_directory_is_not_continued(sets, tmp_path):
    train(network(), *sets, short(epochs=1), seed=0, directory=tmp_path)
    with pytest.raises(SettingsError, match="of other seed: choose another directory"):
        train(network(), *sets, short(epochs=1), seed=1, directory=tmp_path)
    with pytest.raises(SettingsError, match="of other settings"):
        train(network(), *sets, short(epochs=2), seed=0, directory=tmp_path)
    with pytest.raises(SettingsError, match="of other initial weights"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), *sets, short(epochs=1), seed=0, directory=tmp_path)
    with pytest.raises(SettingsError, match="of other examples"):
        train(network(), sets[1], sets[0], short(epochs=1), seed=0, directory=tmp_path)
    other = network()
    next(module for module in other.modules() if isinstance(module, nn.Dropout)).p = 0.9
    with pytest.raises(SettingsError, match="of other layers"):
        train(other, *sets, short(epochs=1), seed=0, directory=tmp_path)
    train(network(), *sets, short(epochs=1, log=Log.NONE), seed=0, directory=tmp_path)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


@pytest.mark.parametrize("content", ["truncated", "text", "evil"])
def test_a_damaged_checkpoint_is_refused_and_never_run(sets, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "training.ckpt"
    train(network(), *sets, short(epochs=1), seed=0, directory=tmp_path)
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif content == "text":
        path.write_text("nothing")
    else:
        torch.save({"callbacks": Evil()}, path)
    with pytest.raises(ArtefactError, match=r"training\.ckpt is no checkpoint, or is damaged: delete it"):
        train(network(), *sets, short(epochs=1), seed=0, directory=tmp_path)
    assert not (tmp_path / "unpickled").exists()
