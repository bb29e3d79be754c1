"""A learner's directory: what goes on there, and what is kept out of it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from structured_ensembles.continual.learner import learner, lesson
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.files.marks import mark

from ..learners import TINY, examples, made, small


def test_a_stopped_task_goes_on_where_it_was(tmp_path):
    first, again = made(), made()
    first.learn(examples(0), directory=tmp_path / "0")
    stamp = (tmp_path / "0" / "training.ckpt").stat().st_mtime_ns
    again.learn(examples(0), directory=tmp_path / "0")
    assert (tmp_path / "0" / "training.ckpt").stat().st_mtime_ns == stamp
    assert first.tasks[0].digests == again.tasks[0].digests
    with pytest.raises(SettingsError, match="another training"):
        again.learn(examples(1), directory=tmp_path / "0")


def test_a_training_of_other_examples_is_not_gone_on_with(tmp_path):
    """The same images under other labels, after the first stream was thrown away."""
    right, wrong = examples(0), examples(0)
    wrong.tensors[1].copy_(1 - wrong.tensors[1])
    (tmp_path / "task-0").mkdir()
    taught = ContinualLearner(small, settings=TINY, directory=tmp_path)
    taught_wrong = lesson.read(wrong, None, None, ())
    mark(tmp_path / "task-0", lesson.claimed(tmp_path / "task-0", taught_wrong, None))
    with pytest.raises(SettingsError, match="task-0 holds another training, of other examples: delete it"):
        taught.learn(right)
    shutil.rmtree(tmp_path / "task-0")
    taught.learn(right)
    assert not (tmp_path / "task-0").exists()


@pytest.mark.parametrize("cross_block", ["zero", "frozen", "trainable"])
def test_a_training_of_other_channels_is_not_gone_on_with(tmp_path, cross_block):
    settings = replace(TINY, cross_block=cross_block)
    first, other = (ContinualLearner(small, settings=replace(settings, keep=keep)) for keep in (0.75, 0.25))
    first.learn(examples(0), directory=tmp_path)
    with pytest.raises(SettingsError, match="holds a training of other channels: take the same settings"):
        other.learn(examples(0), directory=tmp_path)
    assert other.tasks == ()


def test_what_learned_tasks_depend_on_stays(tmp_path):
    taught = ContinualLearner(small, settings=TINY)
    taught.settings = replace(TINY, norms="task")
    taught.settings = TINY
    taught.learn(examples(0))
    size = taught.size()
    taught.settings = replace(TINY, keep=0.25)
    for change in ({"cross_block": "trainable"}, {"norms": "task"}, {"head": "published"}):
        with pytest.raises(SettingsError, match="the tasks learned so far depend on"):
            taught.settings = replace(TINY, **change)
    assert taught.size() == size


def test_data_that_cannot_be_learned_from_do_not_claim_the_folder(tmp_path, monkeypatch):
    def failing(*_):
        raise DataError("loss nan while channels were looked for")

    taught = made()
    with monkeypatch.context() as patch:
        patch.setattr(learner.capacity, "needed", failing)
        with pytest.raises(DataError):
            taught.learn(examples(0), directory=tmp_path)
    taught.learn(examples(1), directory=tmp_path)


@pytest.mark.parametrize("begun", [0, 1])
def test_two_learners_do_not_overwrite_each_other(tmp_path, begun):
    if begun:
        ContinualLearner(small, settings=TINY, directory=tmp_path).learn(examples(2))
    one, other = (ContinualLearner(small, settings=TINY, directory=tmp_path) for _ in range(2))
    one.learn(examples(0))
    with pytest.raises(SettingsError, match="by another one: make the learner anew"):
        other.learn(examples(1))
    with pytest.raises(SettingsError, match="by another one"), other.task(examples(1)):
        pass
    again = ContinualLearner(small, settings=TINY, directory=tmp_path)
    again.learn(examples(1))
    assert len(again.tasks) == begun + 2
