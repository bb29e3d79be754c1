"""What a stream has come to, and the bytes that serving it takes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.utils.data import TensorDataset

from structured_ensembles.continual.learner import capacity, ownership
from structured_ensembles.continual.learner.backbones import backbone
from structured_ensembles.continual.learner.heads import TaskNetwork, make_head
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.continual.learner.memory import Memory, measured
from structured_ensembles.continual.learner.state import State, TaskRecord, served
from structured_ensembles.continual.learner.units import find
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.options.choices import CrossBlock, HeadKind, Norms
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.streams import ContinualSettings

from ..learners import unpacked

WIDTHS = [32, 64, 128, 128, 256, 256, 256, 256]


@pytest.fixture(scope="module")
def half_vgg():
    """The published backbone and its groups."""
    shape = (3, 32, 32)
    network = backbone(NetworkSpec("half_vgg11", shape, 2))
    return network, find(network, HeadKind.LINEAR, torch.rand(2, *shape))


def stream(half_vgg, pruned, tasks):
    """The states after each task, channels taken by random importances; nothing is trained."""
    network, groups = half_vgg
    settings = ContinualSettings(keep=1 - pruned)
    state = State(network, groups, ownership.unowned(groups))
    states = []
    for task in range(tasks):
        generator = torch.Generator().manual_seed(task)
        importance = {group.name: torch.rand(1, group.channels, generator=generator) for group in groups}
        taken = capacity.take(importance, state.owners, settings, settings.keep)
        record = TaskRecord("", ("0", "1"), "", None, torch.empty(0), torch.empty(0), {})
        state = State(
            network,
            groups,
            ownership.claimed(state.owners, taken, task),
            (*state.heads, make_head(HeadKind.LINEAR, (256,), 2, task)),
            (*state.norms, {}),
            (*state.tasks, record),
        )
        states.append(state)
    return states


def weights(state, rule):
    return measured(served(state, rule)).shared // 4


@pytest.mark.parametrize(
    ("pruned", "published"),
    [
        (0.5, [576_432, 432_216, 252_108, 135_054, 69_777, 35_469, 18_009, 9_765, 8_064, 0]),
        (0.75, [144_216, 189_162, 187_488, 167_148, 144_135, 112_275, 94_230, 72_603, 50_400, 43_551]),
        (0.9, [23_994, 40_167, 52_560, 60_489, 64_386, 65_016, 67_266, 67_671, 62_712, 60_075]),
    ],
)
def test_published_weights_of_half_vgg11(half_vgg, pruned, published):
    totals = [weights(state, CrossBlock.ZERO) for state in stream(half_vgg, pruned, 10)]
    assert [after - before for before, after in pairwise([0, *totals])] == published
    assert totals[-1] == sum(published) < 2_304_864
    if pruned == 0.5:
        assert (totals[4], totals[9]) == (1_465_587, 1_536_894)


def test_the_other_rules_store_all_that_owned_channels_read(half_vgg):
    state = stream(half_vgg, 0.5, 5)[-1]
    owned = [sum(taken) for taken in _counts(state)]
    everything = sum(9 * before * after for before, after in pairwise([3, *owned]))
    assert weights(state, CrossBlock.FROZEN) == weights(state, CrossBlock.TRAINABLE) == everything == 2_163_087


def _counts(state):
    return [[int((owner == task).sum()) for task in range(len(state.tasks))] for owner in state.owners.values()]


def test_masks_and_heads_of_half_vgg11(half_vgg):
    states = stream(half_vgg, 0.5, 10)
    memory = [measured(served(state, CrossBlock.ZERO)) for state in states]
    assert memory[0].masks == sum(WIDTHS) // 8 == 172
    assert memory[9].masks == sum(WIDTHS) * 4 // 8 == 688
    assert memory[0].heads == 4 * (2 * 128 + 2)
    assert memory[1].heads - memory[0].heads == 4 * (2 * (128 + 64) + 2)
    assert memory[9].normalisation == 0


def taught(norms, rule=CrossBlock.ZERO):
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False), nn.BatchNorm2d(6)]
    settings = ContinualSettings(norms=norms, cross_block=rule, search=SearchSettings(max_steps=0))
    learner = ContinualLearner(nn.Sequential(*layers), settings=settings)
    for task in range(2):
        generator = torch.Generator().manual_seed(task)
        data = TensorDataset(torch.rand(8, 1, 6, 6, generator=generator), torch.arange(8) % 2)
        with learner.task(data) as network:
            network(data.tensors[0])
    return learner


@pytest.mark.parametrize("rule", CrossBlock)
@pytest.mark.parametrize("norms", Norms)
def test_size_is_a_file_of_what_is_served_less_its_header(norms, rule):
    learner = taught(norms, rule)
    tensors = {f"{part}.{name}": tensor for part, named in learner.served().items() for name, tensor in named.items()}
    file = save(tensors)
    assert learner.size().total == len(file) - 8 - int.from_bytes(file[:8], "little")


def test_the_parts_add_up_by_hand():
    # Of 8 and 6 channels the tasks take 4 and 3, then 2 and 2.
    assert taught(Norms.OWNER).size() == Memory(
        shared=4 * (6 * 9 + 6 + 3 * 4 * 9 + 2 * 6 * 9),
        normalisation=4 * 4 * (6 + 5),
        masks=-(-14 * 2 // 8),
        heads=4 * ((2 * 3 + 2) + (2 * 5 + 2)),
    )
    assert taught(Norms.TASK).size().normalisation == 4 * 4 * ((4 + 3) + (6 + 5))


def test_what_is_served_is_enough_to_answer():
    """A backbone of noise, with what is served written into it, says what the learner says."""
    learner = taught(Norms.OWNER)
    parts, groups = learner.served(), learner.state.groups
    flat = unpacked(parts["masks"]["owners"], 2, 14) - 1
    owners = dict(zip([group.name for group in groups], flat.split([8, 6]), strict=True))
    assert all(torch.equal(owners[name], owner) for name, owner in learner.state.owners.items())
    other = ContinualLearner(lambda: learner.state.backbone, seed=1)
    network = TaskNetwork(other.state.backbone, learner.state.heads[1])
    with torch.no_grad():
        for name, tensor in ownership.tensors(network).items():
            of = ownership.ends(network, groups, owners).get(name)
            if of is not None:
                tensor.copy_(torch.rand(tensor.shape) * ownership.stored(of, CrossBlock.FROZEN).logical_not())
                part = "normalisation" if name in ownership.norm_tensors(network) else "shared"
                tensor[ownership.stored(of, CrossBlock.ZERO).expand_as(tensor)] = parts[part][name]
    state = State(network.backbone, groups, owners, learner.state.heads, learner.state.norms, learner.tasks)
    other.state = state
    inputs = torch.rand(3, 1, 6, 6)
    for task in range(2):
        expected = learner.predict(inputs, task=task).probabilities
        assert torch.equal(other.predict(inputs, task=task).probabilities, expected)
