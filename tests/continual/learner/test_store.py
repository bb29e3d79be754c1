"""A stream in a file: read back to the bit, going on as if never stopped, and refused in one sentence if it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors import torch as safetensors
from torch import nn

from structured_ensembles.continual.learner import store
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.errors import ArtefactError, SettingsError
from structured_ensembles.files import whole
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.options.choices import Norms, Optimiser, Schedule
from structured_ensembles.options.training import TrainingSettings

from ..learners import SHAPE, examples
from ..streams import SETTINGS, STREAMS, Small, looped, made, said, same

# --- round trips ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_is_read_back_to_the_bit(kind, tmp_path):
    taught = STREAMS[kind]()
    taught.save(tmp_path / "a")
    generator = torch.get_rng_state()
    read = ContinualLearner.load(tmp_path / "a", Small)
    assert torch.equal(torch.get_rng_state(), generator)
    assert same(said(taught), said(read))
    read.check_forgetting()
    assert (read.settings, read.seed, read.notices) == (taught.settings, taught.seed, taught.notices)
    assert [(task.name, task.classes) for task in read.tasks] == [(task.name, task.classes) for task in taught.tasks]
    assert (read.size(), read.capacity()) == (taught.size(), taught.capacity())
    assert read.state.groups == taught.state.groups
    read.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", STREAMS)
def test_it_goes_on_as_if_it_had_never_stopped(kind, tmp_path):
    taught = STREAMS[kind]()
    taught.save(tmp_path / "a")
    read = ContinualLearner.load(tmp_path / "a", Small)
    for learner, name in [(taught, "on"), (read, "again")]:
        looped(learner, [5])
        learner.save(tmp_path / name)
    assert (tmp_path / "on").read_bytes() == (tmp_path / "again").read_bytes()
    read.check_forgetting()


def test_learning_after_loading_is_learning_without_a_stop(tmp_path):
    stopped, through = made(), made()
    for seed in range(3):
        through.learn(examples(seed))
        stopped.learn(examples(seed))
        stopped.save(tmp_path / "stopped")
        stopped = ContinualLearner.load(tmp_path / "stopped", Small)
    through.save(tmp_path / "through")
    assert (tmp_path / "stopped").read_bytes() == (tmp_path / "through").read_bytes()


def test_a_named_backbone_needs_not_be_passed(tmp_path):
    spec = NetworkSpec("mlp", SHAPE, 2, {"width": 8, "depth": 1}, mean=(0.5,), std=(0.25,))
    taught = looped(ContinualLearner(spec, settings=SETTINGS), range(2))
    taught.save(tmp_path / "a")
    read = ContinualLearner.load(tmp_path / "a")
    assert same(said(taught), said(read))
    read.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_all_settings_are_read_back(tmp_path):
    training = TrainingSettings(
        optimiser=Optimiser.ADAMW, schedule=Schedule.MULTISTEP, milestones=(2, 5), max_steps=7, learning_rate=0.1 + 0.2
    )
    taught = made(training=training, rank_batches=3, capacity="fixed", channels=2, threshold_over="all", norms="task")
    taught.save(tmp_path / "a")
    assert ContinualLearner.load(tmp_path / "a", Small).settings == taught.settings


def test_any_safetensors_reader_opens_it(tmp_path):
    taught = looped(made(), range(1))
    taught.save(tmp_path / "a")
    tensors = safetensors.load_file(tmp_path / "a")
    assert torch.equal(tensors["backbone.0.weight"], taught.state.backbone[0].weight)
    assert torch.equal(tensors["owners.backbone.0"], taught.state.owners["backbone.0"])


# --- a directory ----------------------------------------------------------------------------------------------------


def test_a_stream_that_is_killed_in_the_middle_of_a_task_goes_on_there(tmp_path):
    through = made()
    for seed in range(3):
        through.learn(examples(seed))

    def begun():
        return ContinualLearner(Small, settings=SETTINGS, seed=3, directory=tmp_path)

    killed = begun()
    killed.learn(examples(0))
    Small.left = 15  # after the search, in the second epoch
    with pytest.raises(KeyboardInterrupt):
        killed.learn(examples(1))
    assert len(killed.tasks) == 1
    assert (tmp_path / "task-1" / "training.ckpt").exists()
    again = begun()
    assert len(again.tasks) == 1
    assert same(said(killed), said(again))
    for seed in range(len(again.tasks), 3):
        again.learn(examples(seed))
    through.save(tmp_path / "through")
    assert (tmp_path / store.STREAM).read_bytes() == (tmp_path / "through").read_bytes()


def test_a_directory_keeps_what_loops_of_ones_own_have_taught(tmp_path):
    taught = ContinualLearner(Small, settings=SETTINGS, directory=tmp_path / "new")
    looped(taught, range(2))
    again = ContinualLearner(Small, settings=SETTINGS, directory=tmp_path / "new")
    assert same(said(taught), said(again))


def test_a_directory_of_another_stream_is_refused(tmp_path):
    looped(made(), [0]).save(tmp_path / store.STREAM)
    for seed, other, message in (
        (4, SETTINGS, "holds a stream of seed 3: take the same"),
        (3, replace(SETTINGS, norms=Norms.TASK), "holds a stream of seed 3, norms owner: take the same"),
    ):
        with pytest.raises(SettingsError, match=message):
            ContinualLearner(Small, settings=other, seed=seed, directory=tmp_path)
    with pytest.raises(ArtefactError, match="another backbone"):
        ContinualLearner(lambda: Small(9), settings=SETTINGS, seed=3, directory=tmp_path)


def test_what_no_learned_task_depends_on_may_change(tmp_path):
    full = replace(SETTINGS, keep=1.0, exhausted="error")
    looped(ContinualLearner(Small, settings=full, directory=tmp_path), [0])
    with pytest.raises(SettingsError, match="exhausted expand"):
        looped(ContinualLearner(Small, settings=full, directory=tmp_path), [1])
    again = ContinualLearner(Small, settings=replace(full, exhausted="expand"), directory=tmp_path)
    assert len(looped(again, [1]).tasks) == 2
    again.check_forgetting()


class Shared(nn.Sequential):
    """One constant in two places."""

    def __init__(self, activation=nn.ReLU):
        super().__init__(nn.Conv2d(1, 8, 3), activation(), nn.Conv2d(8, 6, 3))
        constant = torch.ones(3)
        self[0].register_buffer("constant", constant)
        self[2].register_buffer("constant", constant)


def test_buffers_that_modules_share_are_saved_and_counted_once_each(tmp_path):
    taught = looped(ContinualLearner(Shared, settings=SETTINGS), [0])
    taught.save(tmp_path / "a")
    assert same(said(taught), said(ContinualLearner.load(tmp_path / "a", Shared)))
    assert {name for name in taught.served()["shared"] if name.endswith("constant")} == {
        "backbone.0.constant",
        "backbone.2.constant",
    }


def test_a_backbone_of_the_same_shapes_that_computes_something_else_is_refused(tmp_path):
    looped(ContinualLearner(Shared, settings=SETTINGS), [0]).save(tmp_path / "a")
    with pytest.raises(ArtefactError, match="another backbone, or changed since: task 'täsk 0' gives other answers"):
        ContinualLearner.load(tmp_path / "a", lambda: Shared(nn.Tanh))


# --- writing --------------------------------------------------------------------------------------------------------


def test_a_stream_replaces_a_stream_and_nothing_else(tmp_path):
    taught = made()
    taught.save(tmp_path / "new" / "a")
    looped(taught, [0])
    taught.save(tmp_path / "new" / "a")
    assert len(ContinualLearner.load(tmp_path / "new" / "a", Small).tasks) == 1
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ArtefactError, match=r"thesis\.txt is something else than a stream: choose another name"):
        taught.save(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def test_what_cannot_be_written_leaves_the_stream_that_was_there(tmp_path, monkeypatch):
    taught = looped(made(), [0])
    taught.save(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole.os, "fsync", full)
    looped(taught, [1])
    with pytest.raises(ArtefactError, match=r"cannot be written \(No space left on device\): check that you may write"):
        taught.save(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
