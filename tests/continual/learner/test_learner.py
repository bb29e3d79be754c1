"""The learner as its users meet it: transactions, loops of their own, what they can do wrong."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from structured_ensembles.continual.learner import attempt, learner, ownership, state, store
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.continual.learner.memory import Memory
from structured_ensembles.errors import ArtefactError, DataError, NetworkError, SettingsError
from structured_ensembles.networks import NetworkSpec

from ..learners import SHAPE, TINY, examples, loop, looped, made, same, small


def frozen_facts(taught, task):
    """Everything that a task's answers depend on, by a way that knows nothing of owners: the compact network."""
    compact = {name: tensor.clone() for name, tensor in taught.export_task(task).state_dict().items()}
    with torch.no_grad():
        compact["logits"] = taught.network(task)(examples(99).tensors[0])
    return compact


# --- check_forgetting -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_tasks():
    taught = ContinualLearner(small, settings=TINY)
    looped(taught, range(2))
    return taught


@pytest.fixture
def twice(two_tasks):
    taught = copy.copy(two_tasks)
    taught.state = copy.deepcopy(two_tasks.state)
    return taught


def row_of(taught, task, group="backbone.3"):
    return int((taught.state.owners[group] == task).nonzero()[0])


@pytest.mark.parametrize("name", ["3.weight", "3.bias", "4.weight", "4.bias", "4.running_mean", "4.running_var"])
def test_a_weight_that_is_flipped_by_hand_is_caught(twice, name):
    twice.state.backbone.state_dict()[name][row_of(twice, 0)] *= -1.5
    with pytest.raises(NetworkError, match=rf"backbone\.{name} of task 0 \(task 0\) has changed"):
        twice.check_forgetting()


def test_a_flipped_head_and_a_moved_owner_are_caught(twice):
    with torch.no_grad():
        twice.state.heads[1][-1].weight[0] *= -1
    assert any(change.startswith("head.2.weight of task 1") for change in twice.forgotten())
    assert any(change.startswith("logits of task 1") for change in twice.forgotten())
    twice.state.owners["backbone.0"][row_of(twice, 1, "backbone.0")] = 0
    assert any(change.startswith("owners of backbone.0 of task 0") for change in twice.forgotten())


def test_answers_that_alone_differ_are_told_from_forgetting(twice):
    record = twice.state.tasks[1]
    rounded = replace(record, logits=record.logits + 1e-6)
    twice.state = replace(twice.state, tasks=(twice.state.tasks[0], rounded))
    with pytest.raises(NetworkError, match=r"^logits of task 1 \(task 1\) differ by up to .*, though all .* rounding"):
        twice.check_forgetting()
    twice.state.backbone[0].weight.data[row_of(twice, 0, "backbone.0")] *= 2
    with pytest.raises(NetworkError, match=r"tasks have been forgotten: backbone\.0\.weight of task 0"):
        twice.check_forgetting()


def test_what_no_task_reads_may_change(twice):
    inputs = examples(7).tensors[0]
    before = [twice.predict(inputs, task=task).probabilities for task in (0, 1)]
    twice.state.backbone.state_dict()["3.weight"][row_of(twice, -1)] *= -1
    twice.check_forgetting()
    assert all(torch.equal(twice.predict(inputs, task=task).probabilities, before[task]) for task in (0, 1))


def test_networks_of_tasks_are_their_own(twice):
    inputs = examples(7).tensors[0]
    first, second = twice.network(0), twice.network(1)
    expected = twice.predict(inputs, task=0).probabilities
    with torch.no_grad():
        torch.testing.assert_close(first(inputs).softmax(1), expected)
        second.backbone[0].weight.zero_()
    assert torch.equal(twice.predict(inputs, task=0).probabilities, expected)
    assert twice.network(0).training is False


# --- a training loop of one's own -----------------------------------------------------------------------------------


def test_the_loop_gets_masked_gradients_and_may_run_twice_before_a_step():
    taught = made()
    looped(taught, [0])
    data = examples(1)
    with taught.task(data) as network:
        assert network.training
        (cross_entropy(network(data.tensors[0]), data.tensors[1]) + network(data.tensors[0]).sum()).backward()
        gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    ends = ownership.ends(network, taught.state.groups, taught.state.owners)
    for name, of in ends.items():
        if name in gradients:
            own = ((of.row == 1) & (of.column >= 0)).expand_as(gradients[name])
            assert not gradients[name][~own].any()
            assert gradients[name][own].any()


def test_what_an_exception_leaves_behind_is_nothing(twice):
    before, data = twice.state, examples(5)
    kept = copy.deepcopy(before.backbone.state_dict())

    def interrupted():
        with twice.task(data) as network:
            loop(network, data)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert twice.state is before
    assert same(kept, before.backbone.state_dict()) == []
    looped(twice, [5])
    assert len(twice.tasks) == 3


def test_what_a_loop_freezes_is_free_for_the_next_task(twice):
    with twice.task(examples(5)) as network:
        network.backbone.requires_grad_(False)
        loop(network, examples(5))
    with twice.task(examples(6)) as network:
        assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_loop_goes_on_after_growth_that_it_has_not_seen():
    taught = made(keep=1.0, exhausted="expand")
    looped(taught, [0])
    taught.learn(examples(1))
    looped(taught, [2])
    taught.check_forgetting()
    assert len(taught.tasks) == 3


def test_what_is_usual_comes_from_held_out_examples_if_a_loop_has_some():
    profiles = []
    for held_out in (None, examples(7)):
        taught = made()
        with taught.task(examples(0), held_out) as network:
            loop(network, examples(0))
        profiles.append(taught.tasks[0].profile.usual)
    assert not torch.equal(*profiles)


def test_inputs_of_other_types(twice):
    inputs = examples(9).tensors[0]
    expected = twice.predict(inputs, task=0).probabilities
    assert torch.equal(twice.predict(inputs.double(), task=0).probabilities, expected)
    with pytest.raises(DataError, match=r"inputs of type torch.uint8: pass torch.float32"):
        twice.predict((255 * inputs).byte(), task=0)
    with pytest.raises(SettingsError, match="batch_size 0 must be at least 1"):
        twice.predict(inputs, task=0, batch_size=0)


def test_steps_after_the_block_change_nothing(twice):
    data = examples(5)
    with twice.task(data) as network:
        optimiser = loop(network, data)
    expected = frozen_facts(twice, 2)
    optimiser.step()
    assert same(expected, frozen_facts(twice, 2)) == []
    assert not torch.equal(network.backbone[0].weight, twice.state.backbone[0].weight)


def test_weights_that_are_not_finite_are_not_taken_over(twice):
    before = twice.state

    def diverge():
        with twice.task(examples(5)) as network:
            network.backbone[0].weight.data.fill_(float("nan"))

    with pytest.raises(SettingsError, match=r"backbone.0.weight holds infinite or NaN values: nothing of it is kept"):
        diverge()
    assert twice.state is before


def test_a_task_inside_a_task_is_refused(twice):
    def nested():
        with twice.task(examples(5)):
            looped(twice, [6])

    with pytest.raises(SettingsError, match="another task was learned while 'task 2' was"):
        nested()
    assert len(twice.tasks) == 3
    twice.check_forgetting()


# --- learn ----------------------------------------------------------------------------------------------------------


def test_a_seed_decides_everything_and_the_global_generator_nothing():
    digests = []
    for seed, noise in [(0, 1), (0, 2), (1, 1)]:
        torch.manual_seed(noise)
        generator = torch.get_rng_state()
        taught = ContinualLearner(small, settings=TINY, seed=seed)
        taught.learn(DataLoader(examples(0), batch_size=4, shuffle=True))
        assert torch.equal(torch.get_rng_state(), generator)
        digests.append(taught.tasks[0].digests)
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_a_named_backbone_learns_named_tasks():
    taught = ContinualLearner(NetworkSpec("mlp", SHAPE, 2, {"width": 8, "depth": 1}), settings=TINY)
    taught.learn(examples(0), examples(1), name="bright", classes=["no", "yes"])
    taught.learn(examples(2, classes=3), classes=4)
    assert [(task.name, task.classes) for task in taught.tasks] == [
        ("bright", ("no", "yes")),
        ("task 1", ("0", "1", "2", "3")),
    ]
    prediction = taught.predict(examples(5).tensors[0], task=1, batch_size=5)
    assert prediction.probabilities.shape == (24, 4)
    assert prediction.votes.shape == (1, 24)
    assert taught.tasks[0].held_out_accuracy is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SettingsError("the loss became nan")])
def test_a_task_that_fails_leaves_no_trace(error, monkeypatch):
    def failing(*_arguments, **_named):
        raise error

    taught = made()
    looped(taught, [0])
    before, kept = taught.state, copy.deepcopy(taught.state.backbone.state_dict())
    monkeypatch.setattr(learner, "train_network", failing)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        taught.learn(examples(1))
    assert taught.state is before
    assert same(kept, before.backbone.state_dict()) == []
    taught.check_forgetting()


def test_auto_takes_the_smallest_share_that_costs_little(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the folder is marked with its examples
    accuracies = {0.1: 0.5, 0.25: 0.88, 0.5: 0.9, 0.75: 0.9, 1.0: 0.9}
    tried = []

    def pretended(self, begun, taught, held_out, folder):
        owner = torch.cat(list(begun.owners.values()))
        tried.append(folder)
        keep = float(folder.name.removeprefix("share-"))
        assert (owner == 0).double().mean() == pytest.approx(keep, abs=0.15)
        return attempt.commit(begun, begun.network, taught, accuracies[keep])

    monkeypatch.setattr(ContinualLearner, "_trained", pretended)
    taught = made(capacity="auto", delta=0.03)
    taught.learn(examples(0), directory="run")
    assert [str(folder) for folder in tried] == ["run/share-1", "run/share-0.1", "run/share-0.25"]
    assert taught.tasks[0].held_out_accuracy == 0.88
    taught = made(capacity="auto", delta=0.0)
    accuracies |= {0.5: 0.8, 0.75: 0.8}
    taught.learn(examples(0), directory="run")
    assert taught.capacity() == {"backbone.0": 0, "backbone.3": 0}


def test_auto_really_trains():
    taught = made(capacity="auto", delta=0.9)
    taught.learn(examples(0))
    assert all(share > 0.5 for share in taught.capacity().values())


@pytest.mark.parametrize("threshold", ["free", "all"])
def test_when_nothing_is_left_a_head_is_learned_and_a_notice_says_so(threshold):
    taught = made(keep=1.0, threshold_over=threshold)
    looped(taught, [0])
    assert taught.notices == ()
    before = copy.deepcopy(taught.state.backbone.state_dict())
    taught.learn(examples(1), name="late")
    assert same(before, taught.state.backbone.state_dict()) == []
    assert "Task 'late' gets no channels of its own (none is free): it learns a head" in taught.notices[0]
    taught.check_forgetting()


@pytest.mark.parametrize("task", range(2))
def test_a_task_that_cannot_be_saved_is_not_learned(tmp_path, monkeypatch, task):
    taught = ContinualLearner(small, settings=replace(TINY, keep=1.0), directory=tmp_path)
    looped(taught, range(task))
    before = taught.state, taught.notices
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_whole", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(ArtefactError, match="no space left"):
            taught.learn(examples(task))
    assert (taught.state, taught.notices) == before
    taught.learn(examples(task))
    assert len(ContinualLearner.load(tmp_path / store.STREAM, small).tasks) == task + 1


def test_when_nothing_is_left_a_task_may_be_refused():
    taught = made(keep=1.0, exhausted="error")
    looped(taught, [0])
    with pytest.raises(SettingsError, match=r"no channel is left for task 'late' after 1 tasks: take a smaller keep"):
        taught.learn(examples(1), name="late")


# --- what users do wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (examples(5, classes=3), {"classes": 2}, r"label 2 of 'task 2' is outside 0 \.\.\. 1: number the classes of"),
        (TensorDataset(torch.rand(4, *SHAPE), torch.tensor([0, 1, -1, 0])), {}, "got -1 at example 2"),
        (TensorDataset(torch.rand(0, *SHAPE), torch.zeros(0, dtype=torch.int64)), {}, "the dataset is empty"),
        (TensorDataset(torch.rand(4, *SHAPE), torch.ones(4, dtype=torch.int64)), {}, "one class only"),
        (examples(0), {"name": "again"}, r"'again' has been learned already, as task 0 \(task 0\): give other"),
        (examples(5, shape=(1, 7, 7)), {}, r"inputs of shape \(1, 7, 7\), and the tasks before it of \(1, 6, 6\)"),
        (TensorDataset(torch.full((4, *SHAPE), float("nan")), torch.arange(4) % 2), {}, "NaN or infinite"),
    ],
)
def test_data_that_cannot_be_learned_from(twice, data, options, message):
    before = twice.state
    with pytest.raises(DataError, match=message):
        twice.learn(data, **options)
    with pytest.raises(DataError, match=message), twice.task(data, **options):
        pass
    assert twice.state is before


@pytest.mark.parametrize("task", [-1, 2, 0.5, True, "0", 1.0])
def test_tasks_that_do_not_exist(twice, task):
    for ask in (twice.network, twice.export_task, lambda task: twice.predict(examples(0).tensors[0], task=task)):
        with pytest.raises(SettingsError, match=rf"task {task} is unknown: tasks 0 to 1 have been learned"):
            ask(task)
    with pytest.raises(SettingsError, match="task 0 is unknown: no task has been learned"):
        made().network(0)


@pytest.mark.parametrize("shape", [(2, 1, 5, 5), (0, *SHAPE), SHAPE], ids=str)
def test_inputs_that_no_task_takes(twice, shape):
    with pytest.raises(DataError, match=r"pass at least one of shape \(1, 6, 6\)"):
        twice.predict(torch.rand(shape), task=0)


def test_backbones_that_are_none():
    with pytest.raises(NetworkError, match="the backbone is a int: it must be"):
        ContinualLearner(lambda: 3)
    with pytest.raises(NetworkError, match="the backbone fails on inputs of shape"):
        ContinualLearner(nn.Linear(5, 2), settings=TINY).learn(examples(0))
    with (
        pytest.raises(SettingsError, match="capacity auto finds a task's share by training"),
        made(capacity="auto").task(examples(0)),
    ):
        pass


def test_before_the_first_task_there_is_nothing_to_serve():
    taught = made()
    assert taught.size() == Memory()
    assert taught.forgotten() == ()
    assert taught.capacity() == {}


def test_the_network_that_was_given_is_left_alone():
    network = small()
    before = copy.deepcopy(network.state_dict())
    taught = ContinualLearner(network, settings=TINY)
    looped(taught, range(2))
    assert same(before, network.state_dict()) == []
    assert isinstance(taught.state, state.State)
