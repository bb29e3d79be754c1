"""What every strategy promises, whatever it is: heads of the right width, determinism, honest bytes, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save

from structured_ensembles.continual.streams.protocol import accuracy
from structured_ensembles.data.sources import Split, as_float
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.options.catalogue import STRATEGIES
from structured_ensembles.training import _lightning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from structured_ensembles.continual.learner.memory import Memory
    from structured_ensembles.continual.learner.tasks import Task
    from structured_ensembles.continual.strategies.base import Strategy
    from structured_ensembles.options.streams import ContinualSettings

NAMES = list(STRATEGIES)


@dataclass
class Snapshot:
    """After one task: the logits of all tasks so far on their test images, and the memory."""

    logits: list[Tensor]
    memory: Memory


def answers(learner: Strategy, tasks: list[Task]) -> list[Tensor]:
    with torch.no_grad():
        return [learner.network(number)(as_float(tasks[number].test.images)) for number in range(len(learner.tasks))]


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


@pytest.fixture(scope="module")
def learned() -> dict[str, tuple[Strategy, list[Snapshot]]]:
    """Each strategy after its three tasks, and what it was on the way; filled when first asked for."""
    return {}


@pytest.fixture
def make(tiny_backbone: Callable[[], nn.Module], tiny_settings: Callable[..., ContinualSettings]):
    return lambda name, seed=0: STRATEGIES[name](tiny_backbone, tiny_settings(), seed)


@pytest.fixture
def followed(learned, make, tiny_stream):
    def follow(name: str) -> tuple[Strategy, list[Snapshot]]:
        if name not in learned:
            learner, snapshots, tasks = make(name), [], tiny_stream()
            for task in tasks:
                learner.learn(task)
                snapshots.append(Snapshot(answers(learner, tasks), learner.memory()))
            learned[name] = learner, snapshots
        return learned[name]

    return follow


@pytest.mark.parametrize("name", NAMES)
def test_each_task_has_a_network_of_its_own_in_evaluation_mode(name: str, followed, tiny_stream):
    learner, snapshots = followed(name)
    assert learner.name == name
    assert [(one.name, len(one.classes)) for one in learner.tasks] == [("task 0", 2), ("task 1", 3), ("task 2", 2)]
    assert [tuple(logits.shape) for logits in snapshots[-1].logits] == [(24, 2), (24, 3), (24, 2)]
    networks = [learner.network(number) for number in (0, 1, 2)]
    assert not any(module.training for network in networks for module in network.modules())
    with torch.no_grad():
        # The first still answers for the first task when others have been asked for; and answers twice the same.
        found = [networks[n](as_float(task.test.images)) for _ in range(2) for n, task in enumerate(tiny_stream())]
    assert equal(found, snapshots[-1].logits * 2)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_done_to_a_network_does_not_reach_the_strategy(name: str, followed, tiny_stream):
    learner, snapshots = followed(name)
    with torch.no_grad():
        for number in range(3):
            for tensor in learner.network(number).state_dict().values():
                tensor.zero_()
    assert equal(answers(learner, tiny_stream()), snapshots[-1].logits)


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_gives_one_result_and_leaves_the_global_generator(name: str, followed, make, tiny_stream):
    _, snapshots = followed(name)
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    again, other, tasks = make(name), make(name, seed=1), tiny_stream()
    for task in tasks[:2]:
        again.learn(task)
    other.learn(tasks[0])
    assert equal(answers(again, tasks), snapshots[1].logits)
    assert not equal(answers(other, tasks), snapshots[0].logits)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_what_a_file_of_the_served_tensors_weighs(name: str, followed):
    learner, snapshots = followed(name)
    served = learner.served()
    flat = {
        f"{part}/{key}": value.clone().contiguous() for part, names in served.items() for key, value in names.items()
    }
    file = save(flat)
    assert learner.memory().total == len(file) - 8 - int.from_bytes(file[:8], "little")
    assert learner.memory() == snapshots[-1].memory
    heads = [snapshot.memory.heads for snapshot in snapshots]
    assert 0 < heads[0] < heads[1] < heads[2]


@pytest.mark.parametrize("name", NAMES)
def test_old_tasks_are_changed_only_by_those_that_say_so(name: str, followed):
    learner, (first, second, third) = followed(name)
    changed = [not equal(first.logits, second.logits[:1]), not equal(second.logits, third.logits[:2])]
    assert changed == [learner.forgets] * 2


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_what_is_easy(name: str, tiny_backbone, tiny_settings, tiny_stream):
    chosen = tiny_settings(epochs=8)
    eager = replace(chosen, training=replace(chosen.training, batch_size=8, learning_rate=0.05))
    learner = STRATEGIES[name](tiny_backbone, eager, 0)
    for number, task in enumerate(tiny_stream()):
        learner.learn(task)
        assert accuracy(learner.network(number), task.test) > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_learned_whole_or_not_at_all(name: str, followed, make, tiny_stream, monkeypatch, tmp_path: Path):
    """Interrupted after each of its trainings in turn, it is as before, and goes on to what it would have been."""
    _, snapshots = followed(name)
    learner, tasks = make(name), tiny_stream()
    learner.learn(tasks[0], tmp_path / "0")
    whole_run, trainings, allowed = _lightning.run, 0, 0

    def interrupted(job: _lightning.Job) -> _lightning.Standing:
        nonlocal trainings
        state = whole_run(job)
        trainings += 1
        if trainings > allowed:
            raise KeyboardInterrupt
        return state

    monkeypatch.setattr(_lightning, "run", interrupted)
    while len(learner.tasks) == 1:
        trainings = 0
        try:
            learner.learn(tasks[1], tmp_path / "1")
        except KeyboardInterrupt:
            allowed += 1
            assert len(learner.tasks) == 1
            assert learner.memory() == snapshots[0].memory
            assert equal(answers(learner, tasks), snapshots[0].logits)
    assert allowed > 0
    assert equal(answers(learner, tasks), snapshots[1].logits)


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_of_another_task_is_refused(name: str, make, tiny_stream, tmp_path: Path):
    tasks, other = tiny_stream(), make(name)
    make(name).learn(tasks[0], tmp_path)
    with pytest.raises(SettingsError, match=r"another (task|training)"):
        other.learn(tasks[1], tmp_path)
    assert other.tasks == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_explodes_changes_nothing(name: str, followed, make, tiny_stream):
    _, snapshots = followed(name)
    learner, tasks = make(name), tiny_stream()
    learner.learn(tasks[0])
    wild = replace(learner.settings.training, learning_rate=1e30)
    tame, learner.settings = learner.settings, replace(learner.settings, training=wild)
    with pytest.raises(SettingsError, match="learning_rate 1e\\+30 is too large"):
        learner.learn(tasks[1])
    learner.settings = tame
    assert equal(answers(learner, tasks), snapshots[0].logits)


@pytest.mark.parametrize("name", NAMES)
def test_unsound_tasks_and_unknown_numbers_are_refused(name: str, make, tiny_stream):
    learner, tasks = make(name), tiny_stream()
    with pytest.raises(SettingsError, match="task 0 is unknown: no task has been learned"):
        learner.network(0)
    learner.learn(tasks[0])
    for number in (-1, 1):
        with pytest.raises(SettingsError, match=f"task {number} is unknown: tasks 0 to 0 have been learned"):
            learner.network(number)
    with pytest.raises(DataError, match=r"task 'task 0' has been learned already, as task 0 \(task 0\)"):
        learner.learn(tasks[0])
    nothing = Split(tasks[1].train.images[:0], tasks[1].train.labels[:0])
    with pytest.raises(DataError, match="the training set of task 'task 1' has no images"):
        learner.learn(replace(tasks[1], train=nothing))
    with pytest.raises(DataError, match="the training set of task 'task 1' holds the label 2"):
        learner.learn(replace(tasks[1], classes=("a", "b")))
    large = {
        name: Split(part.images.repeat(1, 1, 2, 2), part.labels)
        for name, part in vars(tasks[1]).items()
        if name in {"train", "held_out", "test"}
    }
    with pytest.raises(DataError, match=r"images of shape \(1, 16, 16\) .* but the stream began with \(1, 8, 8\)"):
        learner.learn(replace(tasks[1], **large))
    assert len(learner.tasks) == 1


def test_a_strategy_is_found_by_its_name():
    assert all(STRATEGIES[name].name == name for name in STRATEGIES)
    with pytest.raises(SettingsError, match="unknown strategy 'naiv': did you mean 'naive'"):
        STRATEGIES["naiv"]
