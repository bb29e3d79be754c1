"""Networks that hold more than their ``state_dict``, or less than weights."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from structured_ensembles.continual import ContinualLearner
from structured_ensembles.errors import NetworkError
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.networks import stored

from ..methods.conftest import images


class Scaled(nn.Module):
    """A linear layer whose outputs are scaled by what a subclass keeps."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)
        self.keep()

    def keep(self) -> None:
        self.register_buffer("scale", torch.rand(3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs.flatten(1)) * self.scale


class Plain(Scaled):
    def keep(self) -> None:
        self.scale = torch.rand(3)


class Passing(Scaled):
    def keep(self) -> None:
        self.register_buffer("scale", torch.rand(3), persistent=False)


class Constant(Scaled):
    def keep(self) -> None:
        self.scale = torch.tensor([1.0, 2.0, 3.0])


class Noisy(Scaled):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + torch.rand(3)


@pytest.mark.parametrize("network", [Plain, Passing])
def test_values_that_would_be_lost_are_named_before_any_work(network: type[Scaled]) -> None:
    with pytest.raises(NetworkError, match="not in its state_dict, such as scale: keep them with register_buffer"):
        SingleNetwork(network).fit(images())
    with pytest.raises(NetworkError, match="not in its state_dict, such as scale"):
        ContinualLearner(network).learn(images())


@pytest.mark.parametrize("network", [Scaled, Constant, Noisy])
def test_networks_that_are_stored_or_never_the_same_pass(network: type[Scaled]) -> None:
    stored.check_stored(network(), network, torch.rand(2, 1, 8, 8))


class Shuffling(Scaled):
    def keep(self) -> None:
        self.scale = torch.rand(3) * 0 + 1
        self.order = torch.randperm(64)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.flatten(1)[:, self.order])


class Unused(Scaled):
    def keep(self) -> None:
        super().keep()
        self.seen = torch.zeros(3)


@pytest.mark.parametrize("network", [Plain, Passing, Constant, Shuffling])
def test_one_network_must_be_all_in_its_state(network: type[Scaled]) -> None:
    given = network()
    with pytest.raises(NetworkError, match=f"not in its state_dict, such as .*, give the class {network.__name__}"):
        SingleNetwork(given).fit(images())
    with pytest.raises(NetworkError, match="not in its state_dict, such as"):
        ContinualLearner(network()).learn(images())


@pytest.mark.parametrize("network", [Scaled, Unused, Noisy])
def test_one_network_that_is_all_there_passes(network: type[Scaled]) -> None:
    given = network()
    stored.check_stored(given, partial(copy.deepcopy, given), torch.rand(2, 1, 8, 8))


def test_a_network_of_another_size_every_time_is_refused() -> None:
    widths = iter(range(4, 99))

    def varying() -> nn.Module:
        width = next(widths)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 3))

    with pytest.raises(NetworkError, match="made twice, the network is not the same"):
        SingleNetwork(varying).fit(images())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_may_be_made_on_a_gpu() -> None:
    stored.check_stored(Scaled(), lambda: Scaled().cuda(), torch.rand(2, 1, 8, 8))


def test_layers_without_weights_are_named() -> None:
    with pytest.raises(NetworkError, match="layer '1' is lazy and has no weights yet"):
        SingleNetwork(lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3))).fit(images())
