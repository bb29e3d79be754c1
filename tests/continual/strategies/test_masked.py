"""One set of weights read through masks: the choice itself, its gradient, and what counts as a weight."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.strategies._masked import (
    Mask,
    Reweighted,
    chosen,
    filled,
    largest,
    packed_masks,
    private_names,
    weight_names,
)
from structured_ensembles.continual.strategies.packnet import PackNet
from structured_ensembles.continual.strategies.piggyback import above
from structured_ensembles.continual.strategies.supsup import by_size
from structured_ensembles.errors import NetworkError
from structured_ensembles.seeding import seeded

FLOATS = st.floats(-(2.0**60), 2.0**60, width=32)


class Odd(nn.Module):
    """One weight of each kind: shared by two layers, frozen, in a norm of two dimensions, and bare."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.fixed = nn.Linear(4, 4, bias=False).requires_grad_(requires_grad=False)
        self.norm, self.batch = nn.LayerNorm((2, 2)), nn.BatchNorm1d(4)
        self.bare, self.slope = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
        self.register_buffer("scratch", torch.ones(3), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = self.fixed(self.second(self.first(inputs))) @ self.bare * self.slope
        return self.batch(self.norm(features.view(-1, 2, 2)).flatten(1))


@given(st.lists(FLOATS, min_size=1, max_size=30), st.lists(FLOATS, min_size=1, max_size=30))
def test_a_mask_is_exactly_zero_or_one_whatever_the_scores(weights: list[float], scores: list[float]):
    size = min(len(weights), len(scores))
    weight = torch.tensor(weights[:size])
    mask = Mask(weight, torch.tensor(scores[:size]), lambda s: above(s, 5e-3))
    expected = [w if s >= torch.tensor(5e-3) else 0.0 for w, s in zip(weight, mask.scores.detach(), strict=True)]
    assert mask().tolist() == [float(one) for one in expected]


def test_the_gradient_of_the_mask_goes_to_the_strength_of_every_entry():
    weight, scores = torch.tensor([[2.0, 3.0], [5.0, 7.0]]), torch.tensor([[0.1, -0.9], [-0.2, 0.8]])
    upstream = torch.tensor([[1.0, -1.0], [2.0, 1.0]])
    mask = Mask(weight, scores, lambda s: by_size(s, keep=0.5))
    assert mask.chosen().tolist() == [[False, True], [False, True]]
    (mask() * upstream).sum().backward()
    # By hand: upstream times weight, times the sign of the score, since strength is its size; also where not chosen.
    assert torch.equal(mask.scores.grad, torch.tensor([[1.0 * 2, -1 * 3 * -1], [2 * 5 * -1, 1 * 7]]))
    plain = Mask(weight, scores, lambda s: above(s, 5e-3))
    (plain() * upstream).sum().backward()
    assert torch.equal(plain.scores.grad, upstream * weight)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.floats(0, 1))
def test_the_largest_are_so_many_even_if_some_are_equal(numbers: list[int], share: float):
    count = int(share * len(numbers))
    found = largest(torch.tensor(numbers).float(), count)
    kept = [number for number, keep in zip(numbers, found.tolist(), strict=True) if keep]
    assert sorted(kept) == sorted(numbers)[len(numbers) - count :]


def test_weights_are_what_is_trained_and_has_two_dimensions_outside_norms():
    network = Odd()
    weights = weight_names(network)
    assert set(weights) == {"bare", "first.weight"}
    assert set(private_names(network, weights)) == {
        *["slope", "first.bias", "second.bias", "norm.weight", "norm.bias", "batch.weight", "batch.bias"],
        *["batch.running_mean", "batch.running_var"],
    }


def test_filling_changes_a_copy_and_shared_weights_stay_shared():
    network = Odd()
    before = copy.deepcopy(network.state_dict())
    full = filled(network, {"first.weight": torch.zeros(4, 4), "batch.running_var": torch.full((4,), 3.0)})
    assert not full.second.weight.any()
    assert full.batch.running_var.tolist() == [3.0] * 4
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_runs_with_the_weights_that_are_made_and_so_does_its_copy():
    with seeded(0):
        network = TaskNetwork(Odd(), nn.Linear(4, 2)).eval()
        inputs = torch.randn(5, 4)
    weight = network.backbone.first.weight.detach()
    masked = Reweighted(network, {"first.weight": Mask(weight, torch.ones(4, 4), lambda s: above(s, 0.5))})
    assert torch.equal(masked(inputs), network(inputs))
    other = copy.deepcopy(masked)
    with torch.no_grad():
        other.makers[0].scores[:, :2] = 0
    half = TaskNetwork(filled(network.backbone, {"first.weight": weight * torch.tensor([0.0, 0, 1, 1])}), network.head)
    assert torch.equal(other(inputs), half.eval()(inputs))
    assert torch.equal(masked(inputs), network(inputs))
    assert chosen(other)["first.weight"].tolist() == [[False, False, True, True]] * 4


def test_scores_are_spared_from_weight_decay():
    mask = Mask(torch.ones(2, 2), torch.ones(2, 2), lambda s: above(s, 0.5))
    masked = Reweighted(TaskNetwork(nn.Linear(2, 2), nn.Linear(2, 2)), {"weight": mask})
    spared = masked.no_weight_decay()
    assert [masked.get_parameter(name) for name in spared] == [mask.scores]


def test_a_mask_takes_one_bit_a_weight():
    assert {k: v.nbytes for k, v in packed_masks([{"a": torch.ones(3, 7, dtype=torch.bool)}], 2).items()} == {
        "task_2.a": 3  # 21 bits
    }


def test_a_backbone_without_weights_is_refused(tiny_settings):
    with pytest.raises(NetworkError, match="packnet masks matrices and kernels that are trained, and the backbone has"):
        PackNet(lambda: nn.Sequential(nn.BatchNorm2d(1)), tiny_settings())


class Normalising(nn.Module):
    """A constant that is stored, before a backbone whose statistics differ by task."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.full((1, 1, 1, 1), 0.5))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.backbone(inputs - self.mean)


def test_a_buffer_that_never_changes_is_counted_once(tiny_backbone, tiny_settings, tiny_stream):
    learner = PackNet(lambda: Normalising(tiny_backbone()), tiny_settings())
    for task in tiny_stream():
        learner.learn(task)
    served = learner.served()
    assert [name for name in served["shared"] if name.endswith(".mean")] == ["constant.mean"]
    statistics = {name for name in served["normalisation"] if name.endswith("running_mean")}
    assert {name.partition(".")[0] for name in statistics} == {"task_0", "task_1", "task_2"}
