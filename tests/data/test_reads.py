"""How often examples are read before the training starts: images are opened and decoded once, to know their labels."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from structured_ensembles.continual.learner import capacity
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.methods import fitting, structured
from structured_ensembles.methods.deep import DeepEnsemble
from structured_ensembles.methods.structured import StructuredEnsemble
from structured_ensembles.options.presets import settings

COUNT = 200
LOOKED_AT = 2 + 4 + 2 * 32
"""Reads beside the one pass: the example inputs, those that a learner keeps, and the inputs of two fingerprints."""


class Counting(Dataset):
    """A map-style dataset without stored labels, which counts how often it is read."""

    def __init__(self, count: int = COUNT) -> None:
        self.count, self.reads = count, 0
        self.images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.reads += 1
        return self.images[index], index % 3


class BegunError(Exception):
    """The first training has begun."""


@pytest.fixture(autouse=True)
def _stopped_where_training_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: object, **__: object) -> None:
        raise BegunError

    for module, name in [(fitting, "train"), (structured, "search"), (capacity, "search")]:
        monkeypatch.setattr(module, name, begun)


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize("kept", [False, True], ids=["held out of them", "held out given"])
@pytest.mark.parametrize("method", [DeepEnsemble, StructuredEnsemble])
def test_a_fit_reads_its_examples_once_before_training(method, kept, tmp_path) -> None:
    train, held_out = Counting(), Counting(50) if kept else None
    with pytest.raises(BegunError):
        method(small, 2, settings=settings()).fit(train, held_out, directory=tmp_path)
    assert COUNT <= train.reads <= COUNT + LOOKED_AT
    assert held_out is None or 50 <= held_out.reads <= 50 + LOOKED_AT


@pytest.mark.parametrize("kept", [False, True], ids=["held out of them", "held out given"])
def test_a_learner_reads_a_task_once_before_training(kept, tmp_path) -> None:
    train, held_out = Counting(), Counting(50) if kept else None
    with pytest.raises(BegunError):
        ContinualLearner(lambda: nn.Sequential(*small()[:-1]), directory=tmp_path).learn(train, held_out)
    assert COUNT <= train.reads <= COUNT + LOOKED_AT
    assert held_out is None or 50 <= held_out.reads <= 50 + LOOKED_AT
