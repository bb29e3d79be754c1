"""The guard: what may not change is what it was, in copies, too."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from structured_ensembles.continual.learner import guard
from structured_ensembles.continual.learner.heads import TaskNetwork, make_head
from structured_ensembles.options.choices import HeadKind

MASKS = {
    "backbone.0.weight": torch.tensor([[True], [False], [False]]),
    "backbone.1.weight": torch.tensor([True, False, False]),
    "backbone.1.running_mean": torch.tensor([True, False, False]),
    "backbone.1.running_var": torch.tensor([True, False, False]),
}
"""The first channel may change but for its biases; others may not."""


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        backbone[1].running_mean.uniform_()
        return TaskNetwork(backbone, make_head(HeadKind.LINEAR, (3,), 2, 0))


def scribble(network):
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.add_(1)


def frozen(network):
    tensors = dict(network.backbone.state_dict())
    for name, mask in MASKS.items():
        bare = name.removeprefix("backbone.")
        tensors[bare] = tensors[bare][~mask.expand_as(tensors[bare])]
    return {name: tensor.clone() for name, tensor in tensors.items()}


def free(network):
    tensors = network.state_dict()
    return {name: tensors[name][mask.expand_as(tensors[name])].clone() for name, mask in MASKS.items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("copied", [False, True])
def test_puts_back_what_may_not_change_before_each_pass(network, copied):
    before = frozen(network)
    with guard.guarded(network, MASKS):
        runs = copy.deepcopy(network).eval() if copied else network.eval()
    if not copied:
        with guard.guarded(network, MASKS):
            scribble(network)
            changed = free(network)
            network(torch.rand(4, 2))
    else:
        scribble(runs)
        changed = free(runs)
        runs(torch.rand(4, 2))
    assert same(before, frozen(runs))
    assert same(changed, free(runs))


def test_a_loop_may_call_the_backbone_and_the_head_apart(network):
    before = frozen(network)
    with guard.guarded(network, MASKS):
        scribble(network)
        network.head(network.eval().backbone(torch.rand(4, 2))).square().sum().backward()
    assert same(before, frozen(network))
    assert network.backbone[0].weight.grad[0].any()
    assert not network.backbone[0].weight.grad[1:].any()


def test_heads_are_free(network):
    with guard.guarded(network, MASKS):
        scribble(network)
        head = copy.deepcopy(network.head.state_dict())
        network.eval()(torch.rand(4, 2))
    assert same(head, network.head.state_dict())


def test_masks_gradients_once_and_only_within_the_block(network):
    for part in (network, copy.deepcopy(network)):
        with guard.guarded(part, MASKS):
            for _ in range(2):
                part.zero_grad()
                part(torch.rand(4, 2)).sum().backward()
            gradient = part.backbone[0].weight.grad
            assert gradient[0].any()
            assert not gradient[1:].any()
            assert not part.backbone[0].bias.grad.any()
        part.eval()(torch.rand(4, 2)).square().sum().backward()
        assert part.backbone[0].weight.grad[1:].any()


def test_masks_the_gradients_of_copies(network):
    with guard.guarded(network, MASKS):
        trained = copy.deepcopy(network)
        trained(torch.rand(4, 2)).square().sum().backward()
    assert trained.backbone[0].weight.grad[0].any()
    assert not trained.backbone[0].weight.grad[1:].any()
    assert network.backbone[0].weight.grad is None


def test_two_passes_before_a_backward_pass(network):
    with guard.guarded(network, MASKS):
        (network(torch.rand(4, 2)) + network(torch.rand(4, 2))).square().sum().backward()
    assert network.backbone[0].weight.grad[0].any()
    assert not network.backbone[0].weight.grad[1:].any()


def test_only_what_may_change_is_taken_over(network):
    trained = copy.deepcopy(network)
    scribble(trained)
    before = frozen(network)
    guard.merged(network, trained, MASKS)
    assert same(before, frozen(network))
    assert same(free(trained), free(network))


def test_statistics_of_others_are_used_and_not_measured(network):
    inputs = torch.rand(8, 2)
    stored = copy.deepcopy(network.backbone).eval()(inputs)
    measured = copy.deepcopy(network.backbone).train()(inputs)
    with guard.normalised_as_stored(network, MASKS):
        trained = copy.deepcopy(network).train()
    output = trained.backbone(inputs)
    torch.testing.assert_close(output[:, 0], measured[:, 0])
    torch.testing.assert_close(output[:, 1:], stored[:, 1:])
    assert not torch.equal(output[:, 1:], measured[:, 1:])
    network.eval()
    torch.testing.assert_close(network.backbone(inputs), stored)


def test_statistics_follow_the_network_to_another_type(network):
    inputs = torch.rand(8, 2).double()
    stored = copy.deepcopy(network.backbone).double().eval()(inputs)
    with guard.guarded(network, MASKS), guard.normalised_as_stored(network, MASKS):
        output = network.double().train().backbone(inputs)
    torch.testing.assert_close(output[:, 1:], stored[:, 1:])


def test_nothing_of_it_is_left(network):
    with guard.guarded(network, MASKS), guard.normalised_as_stored(network, MASKS):
        network(torch.rand(4, 2))
    assert not network.backbone._forward_pre_hooks
    assert not network.backbone[1]._forward_hooks
    scribble(network)
    after = frozen(network)
    network.eval()(torch.rand(4, 2))
    assert same(after, frozen(network))
