"""Nothing is forgotten, to the bit: every kind of backbone, optimiser and rule, whoever trains."""

from __future__ import annotations

import contextlib
import copy
import functools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, relu

from structured_ensembles.continual.learner import capacity, guard, lesson, ownership
from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.errors import NetworkError
from structured_ensembles.options.choices import CrossBlock, Norms, Optimiser

from ..learners import TINY, TRAINING, examples, same


class Residual(nn.Module):
    """A stem, and two blocks that add to its channels: one stream."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8))
        self.first = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))

    def forward(self, images):
        hidden = relu(self.stem(images))
        hidden = relu(hidden + self.first(hidden))
        return relu(hidden + self.second(hidden))


def _plain(*, bias):
    layers = [nn.Conv2d(1, 8, 3, bias=bias), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 2 * 2, 8, bias=bias), nn.ReLU())


def _norm():
    first = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8)]
    return nn.Sequential(*first, nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU())


def _linear():
    layers = [nn.Flatten(), nn.Linear(36, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU()]
    return nn.Sequential(*layers)


def _depthwise():
    first = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    depthwise = [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*first, *depthwise, nn.Conv2d(8, 6, 1), nn.ReLU())


KINDS = {
    "plain": lambda: _plain(bias=False),
    "bias": lambda: _plain(bias=True),
    "norm": _norm,
    "residual": Residual,
    "linear": _linear,
    "depthwise": _depthwise,
}
OPTIMISERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, weight_decay=1e-2),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=1e-1),
}


def made(kind, **changes):
    return ContinualLearner(KINDS[kind], settings=replace(TINY, **changes))


def loop(network, optimiser, data, steps=3):
    for _ in range(steps):
        inputs, labels = data.tensors
        optimiser.zero_grad()
        cross_entropy(network(inputs), labels).backward()
        optimiser.step()


def looped(taught, tasks, make=OPTIMISERS["adam"], *, shared=False):
    """Learn tasks by a plain loop, an optimiser for each or one for all; the facts of each when it was learned."""
    optimiser, facts = None, []
    for seed in range(tasks):
        data = examples(seed)
        with taught.task(data) as network:
            if optimiser is None or not shared:
                optimiser = make(network.parameters())
            else:
                optimiser.add_param_group({"params": list(network.head.parameters())})
            loop(network, optimiser, data)
        facts.append(frozen_facts(taught, seed))
    return facts


def frozen_facts(taught, task):
    """Everything that a task's answers depend on, by a way that knows nothing of owners: the compact network."""
    compact = {name: tensor.clone() for name, tensor in taught.export_task(task).state_dict().items()}
    with torch.no_grad():
        compact["logits"] = taught.network(task)(examples(99).tensors[0])
    return compact


def check_remembered(taught, facts):
    for task, fact in enumerate(facts):
        assert same(fact, frozen_facts(taught, task)) == [], task
    taught.check_forgetting()


@pytest.fixture(scope="module")
def learned():
    """Of a backbone, a rule and an optimiser, when first asked for: a learner of three tasks, and the facts of each."""

    @functools.cache
    def learn(kind, rule=CrossBlock.ZERO, optimiser="adam", *, shared=True):
        taught = made(kind, cross_block=rule)
        return taught, looped(taught, 3, OPTIMISERS[optimiser], shared=shared)

    return learn


@pytest.mark.parametrize("shared", [False, True], ids=["fresh", "shared"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_task_is_forgotten_by_a_plain_loop(kind, optimiser, shared, learned):
    check_remembered(*learned(kind, CrossBlock.ZERO, optimiser, shared=shared))


@pytest.mark.parametrize("rule", [CrossBlock.FROZEN, CrossBlock.TRAINABLE])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["bias", "residual", "depthwise"])
def test_no_task_is_forgotten_whatever_the_rule(kind, optimiser, rule, learned):
    check_remembered(*learned(kind, rule, optimiser))


@pytest.mark.parametrize("kind", ["norm", "residual", "depthwise"])
def test_no_task_is_forgotten_where_each_has_norms_of_its_own(kind):
    taught = made(kind, norms=Norms.TASK)
    check_remembered(taught, looped(taught, 3, OPTIMISERS["adam"], shared=True))
    first, last = (taught.state.norms[task] for task in (0, 2))
    assert all(not torch.equal(first[name], last[name]) for name in first)


@pytest.mark.parametrize(
    ("kind", "optimiser"), [("bias", Optimiser.SGD), ("residual", Optimiser.ADAM), ("depthwise", Optimiser.ADAMW)]
)
def test_no_task_is_forgotten_by_learn(kind, optimiser):
    taught = made(kind, training=replace(TRAINING, optimiser=optimiser, learning_rate=1e-2))
    facts = []
    for task in range(3):
        taught.learn(examples(task))
        facts.append(frozen_facts(taught, task))
    check_remembered(taught, facts)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_without_the_guard_the_optimisers_do_make_it_forget(optimiser, monkeypatch):
    def everything(into, trained, _masks):
        into.load_state_dict(trained.state_dict())

    monkeypatch.setattr(guard, "guarded", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(guard, "merged", everything)
    taught = made("norm")
    looped(taught, 2, OPTIMISERS[optimiser], shared=True)
    with pytest.raises(NetworkError, match="of task 0"):
        taught.check_forgetting()


def test_every_task_gets_channels_and_changes_them():
    taught = made("norm")
    fresh = {name: tensor.clone() for name, tensor in taught.state.backbone.state_dict().items()}
    looped(taught, 3)
    assert all(owner.unique().tolist() == [-1, 0, 1, 2] for owner in taught.state.owners.values())
    network = TaskNetwork(taught.state.backbone, taught.state.heads[0])
    now = ownership.tensors(network)
    for name, of in ownership.ends(network, taught.state.groups, taught.state.owners).items():
        changed = (now[name] != fresh[name.removeprefix("backbone.")]).flatten(1 if now[name].dim() > 1 else 0)
        rows = changed.any(1) if changed.dim() > 1 else changed
        assert torch.equal(rows, of.row.flatten() >= 0), name  # free rows stay as they were drawn


# --- the mask phase, the gates, the features ------------------------------------------------------------------------


SEARCHED = capacity.search


@pytest.mark.parametrize("kind", KINDS)
def test_choosing_channels_changes_nothing(kind, monkeypatch):
    seen = {}

    def watched(network, *arguments):
        seen["before"] = copy.deepcopy(network.state_dict())
        found = SEARCHED(network, *arguments)
        seen["after"] = network.state_dict()
        return found

    monkeypatch.setattr(capacity, "search", watched)
    taught = made(kind)
    drawn = copy.deepcopy(taught.state.backbone.state_dict())
    generator = torch.get_rng_state()
    task = lesson.read(examples(0), None, None, ())
    before, head = taught._prepared(task)
    importance = capacity.needed(before, head, task.examples, taught.settings, taught.seed)
    assert same(seen["before"], seen["after"]) == []
    assert same(drawn, taught.state.backbone.state_dict()) == []
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(value.shape == (1, len(before.owners[name])) for name, value in importance.items())


def features(taught, gates):
    """By layer, what the backbone's layers give for the same inputs under the gates of a task, the task's norms on."""
    network = taught.network(gates)
    outputs = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and name.startswith("backbone"):
            module.register_forward_hook(lambda *call, name=name: outputs.update({name: call[-1]}))
    with torch.no_grad():
        network(examples(7).tensors[0])
    return outputs


def channels_of(taught, name, task):
    for group in taught.state.groups:
        for cut in group.cuts:
            if cut.module == name and cut.side == "out":
                return (taught.state.owners[group.name] <= task) & (taught.state.owners[group.name] >= 0)
    raise KeyError(name)


def drift_of_features(taught):
    """The largest difference between a task's features under its own gates and under the last task's."""
    last, largest = features(taught, 2), 0.0
    for task in range(2):
        for name, value in features(taught, task).items():
            own = channels_of(taught, name, task)
            largest = max(largest, float((value[:, own] - last[name][:, own]).abs().max()))
    return largest


@pytest.mark.parametrize("kind", KINDS)
def test_features_stay_the_same_under_later_gates_with_rule_zero(kind, learned):
    assert drift_of_features(learned(kind, CrossBlock.ZERO)[0]) == 0


@pytest.mark.parametrize("rule", [CrossBlock.FROZEN, CrossBlock.TRAINABLE])
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_features_move_under_later_gates_with_the_other_rules(kind, rule, learned):
    assert drift_of_features(learned(kind, rule)[0]) > 1e-3


def test_while_a_task_is_trained_older_channels_are_what_they_will_be_read_as():
    taught, data = made("norm"), examples(1)
    looped(taught, 1)
    own = channels_of(taught, "backbone.1", 0)
    outputs = []
    with torch.no_grad(), taught.task(data) as network:
        hook = network.backbone[1].register_forward_hook(lambda *call: outputs.append(call[-1]))
        network(data.tensors[0])
        network.eval()(data.tensors[0])
        hook.remove()
    training, evaluated = outputs
    torch.testing.assert_close(training[:, own], evaluated[:, own])
    assert not torch.allclose(training[:, ~own], evaluated[:, ~own])


@pytest.mark.parametrize("rule", CrossBlock)
@pytest.mark.parametrize("kind", KINDS)
def test_the_compact_network_computes_what_the_gated_one_does(kind, rule, learned):
    taught, _ = learned(kind, rule)
    inputs = examples(7).tensors[0]
    for task in range(3):
        with torch.no_grad():
            torch.testing.assert_close(taught.export_task(task)(inputs), taught.network(task)(inputs))


def test_the_compact_network_has_active_rows_times_active_columns():
    taught = made("plain")
    looped(taught, 2)
    for task in range(2):
        compact = taught.export_task(task).backbone
        counts = [int(((owner >= 0) & (owner <= task)).sum()) for owner in taught.state.owners.values()]
        assert [tuple(compact[at].weight.shape[:2]) for at in (0, 2, 5)] == [
            (counts[0], 1),
            (counts[1], counts[0]),
            (counts[2], counts[1] * 2 * 2),
        ]
