"""Small learners for tests: settings that take no time, labelled noise, and a training loop."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.networks.half_vgg import half_vgg11
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.options.training import TrainingSettings

TRAINING = TrainingSettings(epochs=2, batch_size=8, learning_rate=0.05, weight_decay=1e-2)
SEARCH = SearchSettings(max_steps=1, batch_size=12, learning_rate=1e-2)
TINY = ContinualSettings(training=TRAINING, search=SEARCH, keep=0.4, held_out=0.25)
SHAPE = (1, 6, 6)


def examples(seed, count=24, shape=SHAPE, classes=2):
    """Labelled noise, brighter where the label is higher."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    shift = labels.view(-1, *[1] * len(shape)) * torch.rand(1, *shape, generator=generator)
    return TensorDataset(torch.rand(count, *shape, generator=generator) + shift, labels)


def same(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def small():
    first = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8)]
    return nn.Sequential(*first, nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU())


def made(**changes):
    return ContinualLearner(small, settings=replace(TINY, **changes))


def loop(network, data, steps=3):
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(steps):
        inputs, labels = data.tensors
        optimiser.zero_grad()
        cross_entropy(network(inputs), labels).backward()
        optimiser.step()
    return optimiser


def looped(taught, tasks):
    for seed in tasks:
        with taught.task(examples(seed)) as network:
            loop(network, examples(seed))


def published_half_vgg11(input_shape):
    """The published backbone: the convolutions of `half_vgg11` and maps (B, 256, 7, 7), copies of the last ones.

    The published head reads all 12,544 of these numbers; a linear head takes their mean.
    """
    convolutions = list(half_vgg11(input_shape, 2).children())[:-3]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(7))


def unpacked(stream, bits, count):
    """The first ``count`` numbers of what `memory.packed` gave, int64."""
    single = (stream.long()[:, None] >> torch.arange(8, device=stream.device)) & 1
    numbers = single.flatten()[: count * bits].view(count, bits)
    return (numbers << torch.arange(bits, device=stream.device)).sum(dim=1)
