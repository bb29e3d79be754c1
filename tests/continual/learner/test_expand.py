"""Growth: more channels, and every older task says what it said, to the bit."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, relu
from torch.utils.data import TensorDataset

from structured_ensembles.channels import surgery
from structured_ensembles.continual.learner import expand, inference, ownership, state, units
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.errors import NetworkError
from structured_ensembles.options.choices import Capacity, CrossBlock, Norms
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.types import Cut, Group, Side

SETTINGS = ContinualSettings(
    training=TrainingSettings(epochs=1, batch_size=8, learning_rate=0.05),
    search=SearchSettings(max_steps=1, batch_size=12),
    keep=0.7,
    held_out=0.25,
    exhausted="expand",
)
SHAPE = (1, 6, 6)


def examples(seed, count=24):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    shift = labels.view(-1, 1, 1, 1) * torch.rand(1, *SHAPE, generator=generator)
    return TensorDataset(torch.rand(count, *SHAPE, generator=generator) + shift, labels)


INPUTS = examples(99).tensors[0]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.first = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1))

    def forward(self, images):
        hidden = relu(self.stem(images))
        return relu(hidden + self.first(hidden))


class Joined(nn.Module):
    """Two groups side by side, and both again in what reads them."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 4, 3)
        self.after = nn.Sequential(nn.BatchNorm2d(7), nn.PReLU(7), nn.Conv2d(7, 3, 3))

    def forward(self, images):
        return relu(self.after(torch.cat([self.left(images), self.right(images)], dim=1)))


def _depthwise():
    first = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1, groups=4), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(8, 3, 1), nn.ReLU())


def _flattened():
    convolution = [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4 * 4, 5), nn.BatchNorm1d(5), nn.ReLU()]
    return nn.Sequential(*convolution, nn.Linear(5, 4), nn.ReLU())


KINDS = {"residual": Residual, "joined": Joined, "depthwise": _depthwise, "flattened": _flattened}


def made(kind="residual", **changes):
    return ContinualLearner(KINDS[kind], settings=replace(SETTINGS, **changes))


def learn(taught, seed):
    data = examples(seed)
    with taught.task(data) as network:
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=1e-2)
        for _ in range(3):
            optimiser.zero_grad()
            cross_entropy(network(data.tensors[0]), data.tensors[1]).backward()
            optimiser.step()


def logits(taught, task):
    return state.answers(taught.state, task, INPUTS)


def grown_stream(kind, tasks=4, **changes):
    """A stream that has grown, and what each task said when it was learned."""
    taught, said, widths = made(kind, keep=1.0, **changes), [], []
    for seed in range(tasks):
        learn(taught, seed)
        said.append(logits(taught, seed))
        widths.append(state.widths_of(taught.state.groups))
    assert widths[0] != widths[-1]
    return taught, said


@pytest.mark.parametrize(
    ("kind", "rule"),
    [*((kind, CrossBlock.ZERO) for kind in KINDS), ("residual", CrossBlock.FROZEN), ("joined", CrossBlock.TRAINABLE)],
)
def test_older_tasks_say_what_they_said_to_the_bit(kind, rule):
    taught, said = grown_stream(kind, cross_block=rule)
    assert [torch.equal(logits(taught, task), before) for task, before in enumerate(said)] == [True] * 4
    taught.check_forgetting()


@pytest.mark.parametrize("kind", ["residual", "depthwise"])
def test_tasks_with_norms_of_their_own_say_what_they_said_to_the_bit(kind):
    taught, said = grown_stream(kind, norms=Norms.TASK)
    assert [torch.equal(logits(taught, task), before) for task, before in enumerate(said)] == [True] * 4
    taught.check_forgetting()


@pytest.mark.parametrize("kind", KINDS)
def test_the_grown_network_says_the_same_up_to_rounding(kind):
    taught, said = grown_stream(kind)
    answers = inference.read(taught.state, CrossBlock.ZERO, INPUTS)
    for task, before in enumerate(said):
        torch.testing.assert_close(answers[task].logits, before, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(taught.export_task(task)(INPUTS), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_there_was_is_in_its_place_and_the_rest_is_fresh(kind):
    taught = made(kind, keep=1.0)
    learn(taught, 0)
    before = taught.state
    widths = expand.grown(before.groups, taught.settings)
    first, again, other = (expand.widened(before, widths, CrossBlock.ZERO, seed) for seed in (1, 1, 2))
    kept = state.as_learned(first, 0).network.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in state.whole(before, 0).state_dict().items())
    wide, same, else_ = (found.backbone.state_dict() for found in (first, again, other))
    assert all(torch.equal(wide[name], same[name]) for name in wide)
    assert any(not torch.equal(wide[name], else_[name]) for name in wide)
    assert {name: len(owner) for name, owner in first.owners.items()} == widths
    assert all((owner[: len(before.owners[name])] == 0).all() for name, owner in first.owners.items())
    assert all((owner[len(before.owners[name]) :] == -1).all() for name, owner in first.owners.items())


def test_new_rows_are_drawn_and_old_rows_do_not_read_them_under_zero():
    taught = made("depthwise", keep=1.0)
    learn(taught, 0)
    generator = torch.get_rng_state()
    after = expand.expanded(taught.state, taught.settings, 3)
    assert torch.equal(torch.get_rng_state(), generator)
    last = after.backbone[5].weight
    assert tuple(last.shape) == (5, 12, 1, 1)  # of 3 channels and 8, two for each of 4 groups
    assert (last[3:] != 0).all()
    assert (last[:3, :8] != 0).all()
    assert (last[:3, 8:] == 0).all()
    assert after.backbone[3].groups == 6
    frozen = expand.expanded(taught.state, replace(taught.settings, cross_block=CrossBlock.FROZEN), 3)
    assert (frozen.backbone[5].weight[:3, 8:] != 0).all()


def test_the_groups_are_those_that_would_be_found():
    for make in KINDS.values():
        taught = ContinualLearner(make, settings=replace(SETTINGS, keep=1.0))
        learn(taught, 0)
        after = expand.expanded(taught.state, taught.settings, 0)
        assert units.find(after.backbone, SETTINGS.head, INPUTS) == after.groups


def test_places_by_a_slow_loop():
    """Two groups meet in one dimension, the second one twice as wide a channel."""
    layer = nn.Linear(7, 1)
    groups = [
        Group("a", 3, (Cut("0", Side.IN, 0, 1),), private=True),
        Group("b", 2, (Cut("0", Side.IN, 3, 2),), private=True),
    ]
    place = expand._places(nn.Sequential(layer), groups, {"a": 5, "b": 3})["0", Side.IN]
    labels = ["a0", "a1", "a2", "new", "new", "b0", "b0", "b1", "b1", "new", "new"]
    assert place.width == len(labels)
    assert place.old.tolist() == [at for at, label in enumerate(labels) if label != "new"]


@pytest.mark.parametrize(
    ("channels", "settings", "expected"),
    [
        (1, SETTINGS, 2),
        (3, SETTINGS, 5),
        (64, SETTINGS, 96),
        (8, replace(SETTINGS, capacity=Capacity.FIXED, channels=10), 18),
        (8, replace(SETTINGS, capacity=Capacity.FIXED, channels=2), 12),
    ],
)
def test_how_much_is_added(channels, settings, expected):
    assert expand.grown([Group("a", channels, (), private=True)], settings) == {"a": expected}


def test_growth_is_told_and_gives_the_task_channels_of_its_own():
    taught = made(keep=1.0)
    learn(taught, 0)
    taught.learn(examples(1), name="late")
    (told,) = [notice for notice in taught.notices if "grown" in notice]
    assert told.startswith("Task 'late' found no free channel: the network has grown (channels by group: ")
    assert all(f" to {len(owner)}" in told for owner in taught.state.owners.values())
    assert all((owner == 1).any() for owner in taught.state.owners.values())
    taught.check_forgetting()
    assert taught.size().shared > 0


def test_a_task_that_fails_after_growth_leaves_no_trace():
    taught = made(keep=1.0)
    learn(taught, 0)
    before = taught.state

    def interrupted():
        with taught.task(examples(1)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert taught.state is before


def test_a_flipped_weight_is_caught_after_growth():
    taught, _ = grown_stream("residual", tasks=4)
    row = int((taught.state.owners["backbone.stem.0"] == 0).nonzero()[0])
    taught.state.backbone.stem[0].weight.data[row] *= -1
    with pytest.raises(NetworkError, match=r"backbone\.stem\.0\.weight of task 0"):
        taught.check_forgetting()


# --- what cannot grow -----------------------------------------------------------------------------------------------


def _limited():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), AtMost(4), nn.Conv2d(4, 3, 3))


class AtMost(nn.Module):
    """It takes as many channels as it was written for, or fewer."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, maps):
        if maps.shape[1] > self.channels:
            msg = f"got {maps.shape[1]} channels"
            raise ValueError(msg)
        return maps


class Rolled(nn.Module):
    """Its channels change places as soon as there are more than it was written for."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images):
        hidden = relu(self.first(images))
        if hidden.shape[1] > 4:
            hidden = hidden.roll(1, dims=1)
        return relu(self.second(hidden))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_limited, r"layer '2' fails with more channels \(got 6 channels\). Take exhausted reuse"),
        (Rolled, "with more channels it gives other answers. Take exhausted reuse"),
    ],
)
def test_what_cannot_grow_is_refused_and_nothing_is_lost(make, message):
    taught = ContinualLearner(make, settings=replace(SETTINGS, keep=1.0))
    learn(taught, 0)
    before, kept = taught.state, copy.deepcopy(taught.state.backbone.state_dict())
    with pytest.raises(NetworkError, match=message):
        taught.learn(examples(1))
    assert taught.state is before
    assert all(torch.equal(kept[name], value) for name, value in before.backbone.state_dict().items())
    taught.check_forgetting()


def test_the_gates_of_old_tasks_close_the_new_channels():
    taught, _ = grown_stream("residual", tasks=4)
    active = ownership.active(taught.state.owners, 0)
    network = state.whole(taught.state, 0)
    with surgery.zeroed(network, taught.state.groups, active), torch.no_grad():
        expected = network(INPUTS)
        for parameter, of in _entries(taught, network):
            parameter.data[~ownership.used(of, 0).expand_as(parameter)] = 7.0
        assert torch.equal(network(INPUTS), expected)


def _entries(taught, network):
    ends = ownership.ends(network, taught.state.groups, taught.state.owners)
    tensors = ownership.tensors(network)
    return [(tensors[name], of) for name, of in ends.items()]
