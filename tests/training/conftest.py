"""Short trainings for tests: a small network, its settings, and a loss that stops them."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from structured_ensembles.data.examples import Examples
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.progress import quiet


@pytest.fixture(autouse=True)
def silence():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with quiet():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sets():
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    return Examples.of(TensorDataset(images[:260], torch.tensor(digits.target[:260]))).split(0.3, 0)


def network(dropout=0.2):
    """Batch normalisation has buffers to restore, dropout draws random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(dropout), nn.Linear(24, 10)
        )


def short(**changes):
    return TrainingSettings(**{"epochs": 4, "batch_size": 32, "learning_rate": 0.05, **changes})


def assert_equal(first, second):
    """The same weights and buffers, bit for bit, reached on the same way."""
    assert first.history == second.history
    assert first.best_epoch == second.best_epoch
    ours, theirs = first.network.state_dict(), second.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class HaltError(Exception):
    pass


class Halting:
    """Cross-entropy that raises after so many calls."""

    def __init__(self, calls, error=HaltError):
        self.calls, self.error = calls, error

    def __call__(self, logits, labels):
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return functional.cross_entropy(logits, labels)
