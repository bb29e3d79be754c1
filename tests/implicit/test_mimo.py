"""MIMO: the order of inputs and outputs, shapes, limits."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.implicit.mimo import mimo
from structured_ensembles.networks import NetworkSpec, Normalised

SPEC = NetworkSpec("mlp", (2, 3, 3), 4, {"width": 8, "depth": 1}, mean=(0.2, 0.4), std=(0.5, 2.0))


class Apart(nn.Module):
    """Linear: the answer of member m is a matrix of its own times input m alone; it keeps what it was given."""

    def __init__(self, members: int, features: int, classes: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(members, features, classes, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        self.given = images.detach().unflatten(1, (len(self.weights), -1)).flatten(2)
        return torch.cat([self.given[:, m] @ weight for m, weight in enumerate(self.weights)], dim=1)


@settings(max_examples=30)
@given(members=st.integers(1, 5), batch=st.integers(1, 7), seed=st.integers(0, 99))
def test_training_answers_are_back_in_the_order_of_the_inputs(members: int, batch: int, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = mimo(SPEC, members).train()
        network.network = toy = Apart(members, 18, 4)
        images = torch.randn(batch, 2, 3, 3, dtype=torch.float64)
        answers = network(images)
    expected = torch.stack([images.flatten(1) @ weight for weight in toy.weights])
    torch.testing.assert_close(answers, expected)
    assert answers.shape == (members, batch, 4)


def test_members_train_on_orders_of_their_own_and_answer_one_input_in_evaluation() -> None:
    torch.manual_seed(0)
    network = mimo(SPEC, 3)
    network.network = toy = Apart(3, 18, 4)
    images = torch.randn(16, 2, 3, 3, dtype=torch.float64)
    network.train()(images)
    orders = [tuple((toy.given[:, m, None] == images.flatten(1)).all(-1).int().argmax(1).tolist()) for m in range(3)]
    assert len(set(orders)) == 3
    assert all(sorted(order) == list(range(16)) for order in orders)
    network.eval()(images)
    for m in range(3):
        assert torch.equal(toy.given[:, m], images.flatten(1))


def test_every_member_sees_its_channels_normalised() -> None:
    network = mimo(SPEC, 3).eval()
    assert isinstance(network.network, Normalised)
    seen: list[Tensor] = []
    network.network.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(1, 2, 3, 3)
    network(images)
    expected = (images - torch.tensor([0.2, 0.4]).view(2, 1, 1)) / torch.tensor([0.5, 2.0]).view(2, 1, 1)
    torch.testing.assert_close(seen[0], expected.repeat(1, 3, 1, 1))


@pytest.mark.parametrize("name", ["mlp", "small_cnn", "resnet20"])
@pytest.mark.parametrize("batch", [1, 5])
def test_shapes_and_independence_of_the_batch(name: str, batch: int) -> None:
    torch.manual_seed(0)
    network = mimo(NetworkSpec(name, (3, 8, 8), 10), 4)
    images = torch.rand(batch, 3, 8, 8)
    assert network.train()(images).shape == (4, batch, 10)
    answers = network.eval()(images)
    assert answers.shape == (4, batch, 10)
    torch.testing.assert_close(answers[:, :1], network(images[:1]), rtol=1e-4, atol=1e-4)


def test_the_seed_decides_and_evaluation_draws_nothing() -> None:
    images = torch.rand(6, 2, 3, 3)

    def trained(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return mimo(SPEC, 2).train()(images)

    assert torch.equal(trained(3), trained(3))
    assert not torch.equal(trained(3), trained(4))
    network = mimo(SPEC, 2).eval()
    state = torch.get_rng_state()
    assert torch.equal(network(images), network(images))
    assert torch.equal(state, torch.get_rng_state())


def test_state_copies_and_meta() -> None:
    images = torch.rand(3, 2, 3, 3)
    network, other = mimo(SPEC, 2).eval(), mimo(SPEC, 2).eval()
    expected = network(images)
    assert not torch.equal(other(images), expected)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(images), expected)
    assert torch.equal(copy.deepcopy(network)(images), expected)
    meta = copy.deepcopy(network).to("meta")
    assert meta.train()(images.to("meta")).shape == meta.eval()(images.to("meta")).shape == (2, 3, 4)


def test_a_network_without_normalisation_will_do() -> None:
    assert mimo(NetworkSpec("mlp", (1, 2, 2), 3), 2).eval()(torch.rand(1, 1, 2, 2)).shape == (2, 1, 3)


def test_too_many_members_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"400 x 3 = 1200 input channels, and a network may have 1024: .* 341"):
        mimo(NetworkSpec("mlp", (3, 2, 2), 10), 400)
    with pytest.raises(SettingsError, match=r"3 x 50000 = 150000 classes.*at most 2 members"):
        mimo(NetworkSpec("mlp", (1, 2, 2), 50_000), 3)
    with pytest.raises(SettingsError, match="members 0 must be at least 1"):
        mimo(SPEC, 0)


def test_an_architecture_that_takes_three_channels_only() -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(NetworkError, match=r"mimo with 2 members needs 6 input channels: .*3 channels"):
        mimo(NetworkSpec("torchvision:resnet18", (3, 32, 32), 10), 2)
