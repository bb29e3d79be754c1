"""What the tests of single methods share: data that take no time, and a training that changes nothing."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.data import TensorDataset

from structured_ensembles.data.examples import Examples
from structured_ensembles.methods.fitting import Fittable, Fold
from structured_ensembles.training.loop import Trained

if TYPE_CHECKING:
    from torch import nn


def images(shape: tuple[int, ...] = (1, 8, 8), examples: int = 40, classes: int = 3) -> TensorDataset:
    pixels = torch.rand(examples, *shape, generator=torch.Generator().manual_seed(0))
    return TensorDataset(pixels, torch.arange(examples) % classes)


def fold(shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> Fold:
    data = Examples.of(images(shape), "abc")
    return Fold(data, data, seed, None)


def untouched(network: nn.Module) -> Trained:
    """What a training would return that does not change the network."""
    return Trained(copy.deepcopy(network).eval(), 1, 1, 0.5, 1.0, ())


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members come out of ``fit`` as they would go into training."""
    monkeypatch.setattr(Fittable, "train_member", lambda _, network, *__: untouched(network))
