"""Streams to be written and read: a backbone that can be interrupted, and learners that were hardly trained."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.options.choices import CrossBlock, Norms
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.options.training import TrainingSettings

from .learners import examples

SETTINGS = ContinualSettings(
    training=TrainingSettings(epochs=2, batch_size=8, learning_rate=0.05, weight_decay=1e-2),
    search=SearchSettings(max_steps=1, batch_size=12),
    keep=0.4,
    held_out=0.25,
)
INPUTS = examples(99).tensors[0]


class Small(nn.Sequential):
    """It can be interrupted after a number of forward passes."""

    left = -1

    def __init__(self, width=8):
        first = [nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.PReLU(width)]
        super().__init__(*first, nn.Conv2d(width, 6, 3), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, images):
        Small.left -= 1
        if Small.left == 0:
            raise KeyboardInterrupt
        return super().forward(images)


def looped(taught, tasks):
    for seed in tasks:
        data = examples(seed, classes=2 + seed % 2)
        with taught.task(data, name=f"täsk {seed}") as network, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            optimiser = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=1e-2)
            for _ in range(3):
                optimiser.zero_grad()
                cross_entropy(network(data.tensors[0]), data.tensors[1]).backward()
                optimiser.step()
    return taught


def made(**changes):
    return ContinualLearner(Small, settings=replace(SETTINGS, **changes), seed=3)


def said(taught):
    """Everything that a user can ask for."""
    found = [taught.predict(INPUTS, task=task).probabilities for task in range(len(taught.tasks))]
    return [*found, taught.predict(INPUTS).scores] if found else []


def same(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


def grown(**changes):
    return looped(made(keep=1.0, exhausted="expand", **changes), range(3))


STREAMS = {
    "nothing": made,
    "two": lambda: looped(made(), range(2)),
    "norms": lambda: looped(made(norms=Norms.TASK), range(2)),
    "frozen": lambda: looped(made(cross_block=CrossBlock.FROZEN), range(2)),
    "grown": grown,
    "grown norms": lambda: grown(norms=Norms.TASK),
    "grown heads": lambda: grown(head="published"),
}
