from __future__ import annotations

import pytest
import torch

from structured_ensembles.continual.strategies.naive import Naive
from structured_ensembles.continual.strategies.replay import Replay
from structured_ensembles.errors import SettingsError
from structured_ensembles.training import loop


def labels(learner: Replay) -> list[list[int]]:
    return [torch.bincount(split.labels).tolist() for split in learner.kept]


@pytest.fixture
def make(tiny_backbone, tiny_settings):
    return lambda images=20: Replay(tiny_backbone, tiny_settings(), 0, images=images)


@pytest.fixture
def trainings(monkeypatch):
    """What `training.loop.train` is asked for, each time."""
    calls, train = [], loop.train

    def noted(network, train_set, held_out, settings, **rest):
        calls.append((train_set, held_out, settings))
        return train(network, train_set, held_out, settings, **rest)

    monkeypatch.setattr(loop, "train", noted)
    return calls


def test_as_many_of_each_class_are_kept_and_never_more_than_allowed(make, tiny_stream):
    learner, found = make(20), []
    for task in tiny_stream((2, 3, 2)):
        learner.learn(task)
        found.append(labels(learner))
    assert found == [[[10, 10]], [[4, 4], [4, 4, 4]], [[2, 2], [2, 2, 2], [2, 2]]]


def test_a_class_with_fewer_images_gives_what_it_has(make, tiny_stream):
    learner = make(1000)
    learner.learn(tiny_stream(train=48)[0])
    assert labels(learner) == [[24, 24]]


def test_kept_images_are_training_images_of_their_class_and_what_is_dropped_stays_away(make, tiny_stream):
    learner, tasks = make(20), tiny_stream()
    learner.learn(tasks[0])
    before = {image.numpy().tobytes(): int(label) for image, label in zip(*_parts(learner.kept[0]), strict=True)}
    source = {image.numpy().tobytes(): int(label) for image, label in zip(*_parts(tasks[0].train), strict=True)}
    assert before.items() <= source.items()
    learner.learn(tasks[1])
    after = {image.numpy().tobytes(): int(label) for image, label in zip(*_parts(learner.kept[0]), strict=True)}
    assert after.items() <= before.items()
    assert len(after) == 8


def _parts(split):
    return split.images, split.labels


def test_half_of_each_batch_of_twice_the_size_is_old(make, tiny_stream, trainings):
    learner = make(20)
    for task in tiny_stream((2, 2)):
        learner.learn(task)
    (alone, _, first), (both, held_out, second) = trainings
    assert (len(alone), first.batch_size) == (48, 16)
    assert (len(both), second.batch_size) == (96, 32)
    tags = torch.stack([both.dataset[i][0] for i in range(96)])[:, -1, 0, 0].mul(255).round()
    assert tags.tolist() == [1.0] * 48 + [0.0] * 48
    # All twenty kept images take part, as evenly as they can.
    times = torch.unique(torch.stack([both.dataset[i][0] for i in range(48, 96)]), dim=0, return_counts=True)[1]
    assert sorted(times.tolist()) == [2] * 12 + [3] * 8
    assert all(int(held_out.dataset[i][0][-1, 0, 0] * 255) == 1 for i in range(len(held_out)))


def test_a_memory_larger_than_the_task_is_seen_whole(make, tiny_stream, trainings):
    learner, (large, small) = make(200), (tiny_stream(train=96)[0], tiny_stream(train=24)[1])
    learner.learn(large)
    learner.learn(small)
    assert len(trainings[1][0]) == 24 + 96


def test_the_first_task_is_learned_as_naively(make, tiny_backbone, tiny_settings, tiny_stream):
    task, naive, replay = tiny_stream()[0], Naive(tiny_backbone, tiny_settings(), 0), make()
    naive.learn(task)
    replay.learn(task)
    for one, other in zip(naive.shared.parameters(), replay.shared.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_old_heads_go_on_learning(make, tiny_stream):
    learner, tasks = make(), tiny_stream()
    learner.learn(tasks[0])
    before = [parameter.clone() for parameter in learner.heads[0].parameters()]
    learner.learn(tasks[1])
    assert not any(map(torch.equal, before, learner.heads[0].parameters()))


def test_kept_images_are_counted(make, tiny_stream):
    learner = make(20)
    learner.learn(tiny_stream()[0])
    assert learner.memory().data == 20 * (64 + 8)  # bytes of an image of 8x8 and of its label


def test_too_small_a_memory_is_refused_before_the_task_is_learned(make, tiny_backbone, tiny_settings, tiny_stream):
    learner, tasks = make(4), tiny_stream()
    learner.learn(tasks[0])
    with pytest.raises(SettingsError, match="images 4 cannot hold one of each of the 5 classes so far: keep 5 or more"):
        learner.learn(tasks[1])
    with pytest.raises(SettingsError, match="images 0 must be at least 1"):
        Replay(tiny_backbone, tiny_settings(), images=0)
