"""Short trainings for tests: a small network, its settings, and a loss that stops them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from structured_ensembles.training import (
    TrainingSettings,
)


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
