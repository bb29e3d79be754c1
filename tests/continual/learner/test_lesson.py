"""What is found out about a task before any work: the same each time, and of held-out examples, too."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from structured_ensembles.continual.learner import lesson
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.errors import DataError
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.options.training import TrainingSettings

SETTINGS = ContinualSettings(
    training=TrainingSettings(epochs=1, batch_size=8), search=SearchSettings(max_steps=1, batch_size=12), held_out=0.25
)
SHAPE = (1, 6, 6)


def examples(seed, count=24, shape=SHAPE, classes=2):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, *shape, generator=generator), torch.arange(count) % classes)


class Jittered(Dataset):
    """Inputs that a transform changes at random, by every global generator; labels come with them."""

    def __init__(self, seed):
        self.examples = examples(seed)

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        inputs, label = self.examples[index]
        noise = random.random() + np.random.rand() + torch.rand(inputs.shape)  # noqa: NPY002, S311
        return inputs + 0.01 * noise, label


def learner(**changes):
    return ContinualLearner(lambda: nn.Sequential(nn.Conv2d(1, 8, 3)), settings=replace(SETTINGS, **changes))


def generators():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


def by_loop(taught, data):
    with taught.task(data):
        pass


@pytest.mark.parametrize(
    "learn",
    [
        lambda taught, data: taught.learn(data),
        lambda taught, data: taught.learn(data, Jittered(9)),
        lambda taught, data: taught.learn(DataLoader(data, batch_size=5, shuffle=True, drop_last=True)),
        by_loop,
    ],
    ids=["learn", "held out", "drawn", "loop"],
)
def test_transforms_that_draw_leave_the_generators_alone_and_decide_nothing(learn):
    profiles = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        taught, before = learner(), generators()
        learn(taught, Jittered(0))
        assert generators() == before
        profiles.append(taught.tasks[0].profile)
    assert torch.equal(profiles[0].means, profiles[1].means)
    assert torch.equal(profiles[0].usual, profiles[1].usual)


def test_a_task_is_known_again_although_its_transforms_draw():
    taught = learner()
    taught.learn(Jittered(0))
    torch.rand(7)
    with pytest.raises(DataError, match=r"'task 1' has been learned already, as task 0 \(task 0\)"):
        taught.learn(Jittered(0))
    taught.learn(Jittered(1))


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (
            examples(6, shape=(1, 7, 7)),
            r"'held-out set of task 0' has inputs of shape \(1, 7, 7\), and the training examples of \(1, 6, 6\)",
        ),
        (
            TensorDataset(torch.full((4, *SHAPE), float("nan")), torch.arange(4) % 2),
            r"'held-out set of task 0': the inputs hold 144 NaN or infinite values",
        ),
        (examples(6, classes=3), r"label 2 of 'held-out set of task 0' is outside 0 \.\.\. 1"),
        (examples(6, count=0), "the dataset is empty"),
    ],
)
def test_held_out_examples_are_checked_before_any_work(held_out, message, monkeypatch):
    taught = learner()
    monkeypatch.setattr(ContinualLearner, "_prepared", lambda *_: pytest.fail("work has begun"))
    with pytest.raises(DataError, match=message):
        taught.learn(examples(0), held_out)


def test_classes_of_one_name_are_refused():
    with pytest.raises(DataError, match=r"'pets' has classes that are called the same \('cat'\): give each a name"):
        lesson.read(examples(0, classes=3), "pets", ["cat", "dog", "cat"], ())
    assert lesson.read(examples(0), "pets", ["cat", "dog"], ()).examples.classes == ("cat", "dog")


def test_what_is_drawn_with_replacement_could_be_in_both_parts():
    data = examples(5)
    with pytest.raises(DataError, match="with replacement"):
        learner().learn(DataLoader(data, sampler=RandomSampler(data, replacement=True)))
