"""One attempt: what is trained elsewhere, or as another type, comes back as it was stored."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.options.choices import Norms
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.streams import ContinualSettings

SHAPE = (1, 6, 6)


def small():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6))


def examples(seed, count=24):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *SHAPE, generator=generator), torch.arange(count) % 2


def loop(network, inputs, labels):
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        cross_entropy(network(inputs), labels).backward()
        optimiser.step()


def tensors(network):
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]


TYPES = [torch.float64, torch.float64, torch.float32, torch.bfloat16]
WHERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("norms", Norms)
def test_a_network_may_be_moved_and_what_is_taken_over_is_moved_back(norms):
    settings = ContinualSettings(search=SearchSettings(max_steps=1, batch_size=12), keep=0.4, norms=norms)
    taught = ContinualLearner(small, settings=settings)
    for task, dtype in enumerate(TYPES):
        inputs, labels = examples(task)
        with taught.task([(inputs, labels)]) as network:
            assert {(tensor.dtype, tensor.device.type) for tensor in tensors(network)} == {(torch.float32, "cpu")}
            loop(network.to(WHERE, dtype), inputs.to(WHERE, dtype), labels.to(WHERE))
        assert {(tensor.dtype, tensor.device.type) for tensor in tensors(taught.network(task))} == {
            (torch.float32, "cpu")
        }
        expected = network.head.state_dict()
        for name, kept in taught.state.heads[task].state_dict().items():
            assert torch.equal(kept, expected[name].to("cpu", torch.float32))
    taught.check_forgetting()
