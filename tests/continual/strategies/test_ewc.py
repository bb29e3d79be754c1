from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.strategies.ewc import EWC, Anchored, fisher
from structured_ensembles.continual.strategies.naive import Naive
from structured_ensembles.errors import SettingsError


def linear(classes: int = 3, seed: int = 0) -> TaskNetwork:
    """A head that hands the features on: logits are W x."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(4, classes, bias=False))
    with torch.no_grad():
        backbone[1].weight.normal_(0, 2, generator=torch.Generator().manual_seed(seed))
    return TaskNetwork(backbone, nn.Identity())


def parameters(learner: EWC | Naive) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in learner.shared.parameters()])


def test_information_is_that_of_the_softmax():
    """For logits W x the expectation over labels is known: p (1 - p) x^2; one draw of the label is right on average."""
    network, repeats = linear(), 1000
    images = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    (found,) = fisher(network, images.repeat_interleave(repeats, dim=0), seed=2)
    p = network(images).softmax(-1).detach()
    expected = ((p * (1 - p))[:, :, None] * images.view(2, 1, 4).square()).mean(dim=0)
    torch.testing.assert_close(found, expected, rtol=0.15, atol=2e-3)


def test_gradients_are_squared_for_each_image_by_itself():
    """With one class in effect the label is certain, and gradients of two opposite images would cancel in a mean."""
    network = linear(2)
    with torch.no_grad():
        network.backbone[1].weight.zero_()
    image = torch.rand(1, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    (found,) = fisher(network, torch.cat([image, -image]), seed=0)
    # At W = 0 each gradient is (1 - 1/2) x or -1/2 x, whatever the label: its square is x^2 / 4.
    torch.testing.assert_close(found, (image.flatten().square() / 4).expand(2, 4))


def test_estimating_leaves_the_network_as_it_was_and_repeats(tiny_backbone, tiny_stream):
    network = TaskNetwork(tiny_backbone(), nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 2))).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, state = tiny_stream()[0].train.images[:8], torch.random.get_rng_state()
    first, again = fisher(network, images, seed=3), fisher(network, images, seed=3)
    assert all(map(torch.equal, first, again))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_frozen_parameters_are_left_out():
    network = linear()
    network.backbone.append(nn.Linear(3, 3))
    network.backbone[1].weight.requires_grad_(False)
    images = torch.rand(2, 1, 2, 2)
    information = fisher(network, images, seed=0)
    assert [tuple(one.shape) for one in information] == [(3, 3), (3,)]
    assert float(Anchored(network, information).distance().detach()) == 0


def test_the_distance_is_the_weighted_square_of_what_moved():
    network = linear()
    weight = network.backbone[1].weight
    anchored = Anchored(network, [torch.full_like(weight, 3.0)])
    assert float(anchored.distance().detach()) == 0
    with torch.no_grad():
        weight[0, 1] += 0.5
        weight[2, 3] -= 2
    assert float(anchored.distance().detach()) == pytest.approx(3 * 0.5**2 + 3 * 2**2)
    anchored.distance().backward()
    expected = torch.zeros_like(weight)
    expected[0, 1], expected[2, 3] = 2 * 3 * 0.5, -2 * 3 * 2
    torch.testing.assert_close(weight.grad, expected)


def test_without_strength_it_is_naive_to_the_bit(tiny_backbone, tiny_settings, tiny_stream):
    naive, ewc = Naive(tiny_backbone, tiny_settings(), 0), EWC(tiny_backbone, tiny_settings(), 0, strength=0)
    for task in tiny_stream()[:2]:
        naive.learn(task)
        ewc.learn(task)
    assert torch.equal(parameters(naive), parameters(ewc))


def test_the_stronger_the_springs_the_less_the_weights_move(tiny_backbone, tiny_settings, tiny_stream):
    moved = []
    for strength in (0, 1e4, 1e6):
        learner, tasks = EWC(tiny_backbone, tiny_settings(12), 0, strength=strength), tiny_stream()
        learner.learn(tasks[0])
        before, information = parameters(learner), torch.cat([one.flatten() for one in learner.information])
        learner.learn(tasks[1])
        moved.append(float((information * (parameters(learner) - before).square()).sum()))
    assert moved[0] > 10 * moved[1] > 100 * moved[2]


def test_information_of_old_tasks_decays(tiny_backbone, tiny_settings, tiny_stream):
    tasks = tiny_stream()[:2]
    learners = {decay: EWC(tiny_backbone, tiny_settings(), 0, strength=0, decay=decay) for decay in (1.0, 0.5)}
    first, second = {}, {}
    for decay, learner in learners.items():
        learner.learn(tasks[0])
        first[decay] = learner.information[0]
        learner.learn(tasks[1])
        second[decay] = learner.information[0]
    assert torch.equal(first[1.0], first[0.5])
    torch.testing.assert_close(second[1.0] - second[0.5], 0.5 * first[1.0])


def test_the_information_is_counted(tiny_backbone, tiny_settings, tiny_stream):
    learner = EWC(tiny_backbone, tiny_settings(), 0)
    assert learner.memory().data == 0
    learner.learn(tiny_stream()[0])
    assert learner.memory().data == 4 * sum(parameter.numel() for parameter in tiny_backbone().parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1}, "strength -1 must be at least 0"),
        ({"strength": math.nan}, "strength nan must be at least 0"),
        ({"decay": 0}, r"decay 0 is outside \(0, 1\]"),
        ({"decay": 1.1, "examples": 0}, r"decay 1.1 is outside \(0, 1\].*; examples 0 must be at least 1"),
    ],
)
def test_settings_outside_their_limits_are_refused(tiny_backbone, tiny_settings, options, message):
    with pytest.raises(SettingsError, match=message):
        EWC(tiny_backbone, tiny_settings(), **options)
