"""The learner in Avalanche's loops: whatever their optimisers do, no task is forgotten."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

pytest.importorskip("avalanche", exc_type=ImportError)

from avalanche.benchmarks import class_incremental_benchmark, task_incremental_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive

from structured_ensembles.continual.avalanche import ABSENT, StructuredModel, StructuredPlugin
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.seeding import seeded

TINY = ContinualSettings(search=SearchSettings(max_steps=1, batch_size=12, learning_rate=1e-2), keep=0.4)
CLASSES = [(0, 1), (2, 3, 4), (5, 6)]
OPTIMISERS = {
    "plain": lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.02, weight_decay=0.05),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=0.05),
}


class Remembering(Naive):
    """An optimiser that keeps its momenta from task to task."""

    def make_optimizer(self, **named: Any) -> None:
        super().make_optimizer(**named | {"reset_optimizer_state": self.optimized_param_id is None})


class Failing(StructuredPlugin):
    """Stops the training after an epoch."""

    def after_training_epoch(self, *_args: object, **_named: object) -> None:
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _seeded():
    with seeded(0):  # Avalanche shuffles by the global generator
        yield


def inputs(seed=9, count=14):
    """Noise, brighter with each class of a task."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 7
    brightness = torch.tensor([0, 1, 0, 1, 2, 0, 1])[labels]
    return torch.rand(count, 1, 6, 6, generator=generator) + brightness.view(-1, 1, 1, 1), labels


def dataset(seed):
    found = TensorDataset(*inputs(seed, 70))
    found.targets = found.tensors[1].tolist()
    return as_classification_dataset(found)


@pytest.fixture(scope="module")
def plain():
    parts = {"train": dataset(0), "test": dataset(1)}
    return class_incremental_benchmark(parts, num_classes_per_exp=[2, 3, 2], class_order=list(range(7)))


@pytest.fixture(scope="module")
def benchmark(plain):
    return task_incremental_benchmark(plain)


def small():
    first = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8)]
    return nn.Sequential(*first, nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU())


def strategy(optimiser="adam", *, kind=Naive, model=None, plugin=StructuredPlugin, epochs=3, **named):
    model = model or StructuredModel(ContinualLearner(small, settings=TINY))
    loop = {"train_mb_size": 10, "train_epochs": epochs, "eval_mb_size": 16, "evaluator": None}
    plugins = [plugin()] if plugin else []
    return kind(model=model, optimizer=OPTIMISERS[optimiser](model.parameters()), plugins=plugins, **loop | named)


def answers(loop, task):
    """What the model says to noise, and what the compact network of the task does: it knows nothing of Avalanche."""
    loop.model.eval()
    with torch.no_grad():
        return loop.model(inputs()[0], task)[:, CLASSES[task]], loop.model.learner.export_task(task)(inputs()[0])


def check_answers(before, now):
    assert all(map(torch.equal, before, now))


@pytest.mark.parametrize("kind", [Naive, Remembering])
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_no_task_is_forgotten_by_one_optimiser_for_all(benchmark, optimiser, kind):
    loop, facts = strategy(optimiser, kind=kind), []
    for task, experience in enumerate(benchmark.train_stream):
        loop.train(experience)
        facts.append(answers(loop, task))
    for task, fact in enumerate(facts):
        check_answers(fact, answers(loop, task))
    loop.model.learner.check_forgetting()
    assert [record.classes for record in loop.model.learner.tasks] == [tuple(map(str, part)) for part in CLASSES]


def test_the_optimiser_trains_the_task_and_starts_afresh_unless_it_is_kept(benchmark):
    steps = {}
    for kind in (Naive, Remembering):
        loop = strategy(kind=kind, epochs=2)
        before = {name: value.clone() for name, value in loop.model.learner.state.backbone.state_dict().items()}
        loop.train(benchmark.train_stream[:2])
        weight = loop.model.network.backbone[0].weight
        assert not torch.equal(before["0.weight"], loop.model.learner.state.backbone[0].weight)
        assert any(weight is parameter for group in loop.optimizer.param_groups for parameter in group["params"])
        assert sum(len(group["params"]) for group in loop.optimizer.param_groups) == len([*loop.model.parameters()])
        steps[kind] = int(loop.optimizer.state[weight]["step"])
    assert steps == {Naive: 6, Remembering: 10}  # 20 and 30 examples in batches of 10, 2 epochs


def test_a_task_is_learned_and_measured_by_avalanche(benchmark):
    evaluator = EvaluationPlugin(accuracy_metrics(experience=True), loggers=[])
    loop = strategy("plain", evaluator=evaluator, eval_every=6, epochs=12)
    loop.train(benchmark.train_stream, eval_streams=[benchmark.test_stream])
    measured = loop.eval(benchmark.test_stream)
    for task, experience in enumerate(benchmark.test_stream):
        found = next(value for key, value in measured.items() if key.endswith(f"Exp{task:03d}"))
        images, labels = zip(*[experience.dataset[index][:2] for index in range(len(experience.dataset))], strict=True)
        said = loop.model.learner.predict(torch.stack(images), task=task).classes + CLASSES[task][0]
        assert found == pytest.approx(float((said == torch.as_tensor(labels)).double().mean()))
        assert found > 0.9


def test_logits_have_a_column_for_every_class_and_tasks_may_be_mixed(benchmark):
    loop = strategy()
    loop.train(benchmark.train_stream[:2])
    loop.model.eval()
    images, label = inputs()[0], torch.arange(14) % 3
    with torch.no_grad():
        mixed, single = loop.model(images, label), [loop.model(images, task) for task in range(3)]
    assert mixed.shape == (14, 5)
    for task in range(2):
        torch.testing.assert_close(mixed[label == task], single[task][label == task])
        others = [column for column in range(5) if column not in CLASSES[task]]
        assert (single[task][:, others] == ABSENT).all()
        torch.testing.assert_close(single[task][:, CLASSES[task]], loop.model.learner.network(task)(images).detach())
    assert not mixed[label == 2].any()  # has not been learned
    assert loop.model(images, None).keys() == {0, 1}


def test_a_stream_that_was_saved_goes_on(benchmark, tmp_path):
    first = strategy()
    first.train(benchmark.train_stream[:2])
    first.model.learner.save(tmp_path / "stream")
    loop = strategy(model=StructuredModel(ContinualLearner.load(tmp_path / "stream", small)))
    facts = [answers(first, task) for task in range(2)]
    for _ in range(2):
        for task, fact in enumerate(facts):
            check_answers(fact, answers(loop, task))
        if len(loop.model.learner.tasks) == 2:
            loop.train(benchmark.train_stream[2])
    with pytest.raises(DataError, match="task label 1 has been learned already"):
        loop.train(benchmark.train_stream[1])


def test_a_network_may_grow_in_between(benchmark):
    settings = replace(TINY, keep=1.0, exhausted="expand")
    loop = strategy(kind=Remembering, model=StructuredModel(ContinualLearner(small, settings=settings)))
    loop.train(benchmark.train_stream[0])
    fact = answers(loop, 0)
    loop.train(benchmark.train_stream[1])
    assert loop.model.network.backbone[0].out_channels == 12
    check_answers(fact, answers(loop, 0))
    loop.model.learner.check_forgetting()


def test_a_training_that_is_stopped_is_given_up(benchmark):
    loop = strategy()
    loop.train(benchmark.train_stream[0])
    fact, model = answers(loop, 0), loop.model
    stopped = strategy(model=model, plugin=Failing)
    with pytest.raises(KeyboardInterrupt):
        stopped.train(benchmark.train_stream[1])
    assert len(model.learner.tasks) == 1
    strategy(model=model).train(benchmark.train_stream[1])
    check_answers(fact, answers(loop, 0))
    assert len(model.learner.tasks) == 2
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_diverged_task_is_not_taken_over(benchmark):
    loop = strategy()
    loop.train(benchmark.train_stream[0])
    fact = answers(loop, 0)
    loop.optimizer.param_groups[0]["lr"] = float("inf")
    with pytest.raises(SettingsError, match="holds infinite or NaN values: nothing of it is kept"):
        loop.train(benchmark.train_stream[1])
    check_answers(fact, answers(loop, 0))


def test_what_cannot_be_learned_is_refused_before_any_work(plain, benchmark):
    loop = strategy()
    with pytest.raises(DataError, match=r"the experience has 0 task labels \[\]: a task needs one of its own"):
        loop.train(plain.train_stream[0])
    loop.train(benchmark.train_stream[0])
    with pytest.raises(DataError, match="task label 0 has been learned already, as task 0: a task is learned once"):
        loop.train(benchmark.train_stream[0])
    assert len(loop.model.learner.tasks) == 1


def test_the_model_and_the_plugin_need_each_other(benchmark):
    with pytest.raises(SettingsError, match=r"task label 0 was not begun: train with plugins=\[StructuredPlugin"):
        strategy(plugin=None).train(benchmark.train_stream[0])
    with pytest.raises(SettingsError, match="the model of the strategy is a Linear: StructuredPlugin trains a"):
        strategy(model=nn.Linear(2, 2)).train(benchmark.train_stream[0])
    with pytest.raises(SettingsError, match="there is no task to commit: begin one first"):
        strategy().model.commit()


def test_without_avalanche_the_remedy_is_named(monkeypatch):
    name = "structured_ensembles.continual.avalanche"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "avalanche.core", None)
    with pytest.raises(ImportError, match=r"pip install 'structured-ensembles\[avalanche\]'"):
        importlib.import_module(name)
