"""BatchEnsemble: the factors, what is frozen after the first task, and what a task takes to store."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, linear

from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies._masked import Partial
from structured_ensembles.continual.strategies.batch_ensemble import (
    BatchEnsemble,
    Factored,
    Factors,
    RankOne,
    multiplied,
)
from structured_ensembles.data.sources import Split, as_float
from structured_ensembles.errors import NetworkError
from structured_ensembles.options.choices import Optimiser
from structured_ensembles.options.training import TrainingSettings

from ..oracles import published_half_vgg11

WEIGHTS = {"0.weight": 8 * 1 * 9, "4.weight": 12 * 8 * 9}
FACTORS = (1 + 8) + (8 + 12)


@pytest.fixture(name="learner")
def _learner(tiny_backbone, tiny_settings):
    return BatchEnsemble(tiny_backbone, tiny_settings())


def logits(learner, tasks, upto):
    with torch.no_grad():
        return [learner.network(n)(as_float(task.test.images)) for n, task in enumerate(tasks[:upto])]


@pytest.mark.parametrize("optimiser", list(Optimiser))
def test_old_tasks_stay_to_the_bit_whatever_the_optimiser(learner, tiny_stream, optimiser):
    decaying = TrainingSettings(
        epochs=2, batch_size=16, optimiser=optimiser, learning_rate=0.02, nesterov=False, weight_decay=0.1
    )
    learner.settings = replace(learner.settings, training=decaying)
    tasks = tiny_stream((2, 3, 2, 2))
    drawn = {name: learner.weight(name).clone() for name in WEIGHTS}
    learner.learn(tasks[0])
    answers, weights = logits(learner, tasks, 1), {name: learner.weight(name).clone() for name in WEIGHTS}
    for task in tasks[1:]:
        learner.learn(task)
    assert all(map(torch.equal, answers, logits(learner, tasks, 1)))
    for name in WEIGHTS:
        assert torch.equal(learner.weight(name), weights[name])
        assert (weights[name] != drawn[name]).float().mean() > 0.9


def test_every_task_has_factors_of_its_own_that_start_at_one(learner, tiny_stream):
    for task in tiny_stream():
        learner.learn(task)
    for name in WEIGHTS:
        r, s = zip(*(learner.factors[task][name] for task in (0, 1, 2)), strict=True)
        for vectors in (r, s):
            assert all((vector != 1).all() for vector in vectors)
            assert all((vector - 1).abs().max() < 0.3 for vector in vectors)
            assert not torch.equal(vectors[0], vectors[1])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_factors_multiply_what_a_convolution_reads_and_makes(groups):
    generator = torch.Generator().manual_seed(0)
    r, s = torch.randn(8, generator=generator), torch.randn(12, generator=generator)
    weight = torch.randn(12, 8 // groups, 3, 3, generator=generator)
    inputs, bias = torch.randn(2, 8, 5, 5, generator=generator), torch.randn(12, generator=generator)
    slow = conv2d(inputs * r[:, None, None], weight, groups=groups) * s[:, None, None] + bias[:, None, None]
    fast = conv2d(inputs, multiplied(weight, Factors(r, s), groups), bias, groups=groups)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)


def test_factors_multiply_what_a_linear_layer_reads_and_makes():
    generator = torch.Generator().manual_seed(0)
    r, s = torch.randn(5, generator=generator), torch.randn(3, generator=generator)
    weight, inputs = torch.randn(3, 5, generator=generator), torch.randn(4, 5, generator=generator)
    torch.testing.assert_close(linear(inputs, multiplied(weight, Factors(r, s), 1)), linear(inputs * r, weight) * s)


def test_decay_leaves_the_factors_alone(learner, tiny_stream):
    weight = learner.weight("4.weight")
    maker = RankOne(Partial(weight, torch.tensor(False), weight), weight, 1)
    network = Factored(learner.start(tiny_stream()[0]), {"4.weight": maker})
    assert network.no_weight_decay() == {"makers.0.r", "makers.0.s"}
    assert network.no_weight_decay() < {name for name, _ in network.named_parameters()}


def test_what_is_served_is_enough_to_rebuild_every_task(learner, tiny_stream):
    for task in tiny_stream():
        learner.learn(task)
    shared = learner.served()["shared"]
    for task in (0, 1, 2):
        for name in WEIGHTS:
            factors = Factors(*(shared[f"task_{task}.{name}.{kind}"] for kind in ("r", "s")))
            read = learner.network(task).backbone.get_parameter(name)
            assert torch.equal(read, multiplied(shared[name], factors, 1))
    memory = learner.memory()
    bias = 12
    assert memory.shared == 4 * (sum(WEIGHTS.values()) + 3 * (FACTORS + bias))
    assert (memory.normalisation, memory.masks) == (4 * 3 * 4 * (8 + 12), 0)


def test_a_task_of_half_vgg11_takes_2499_numbers(tiny_settings):
    generator = torch.Generator().manual_seed(0)
    learner = BatchEnsemble(lambda: published_half_vgg11((3, 32, 32)), tiny_settings(1))
    assert learner.memory().total == 0
    sizes = []
    for number in (0, 1):
        images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
        split = Split(images, torch.arange(4) % 2)
        learner.learn(Task(f"task {number}", split, split, split, ("a", "b")))
        sizes.append(learner.memory())
    assert sizes[0].shared == 4 * (2_304_864 + 2_499)
    assert sizes[1].shared - sizes[0].shared == 4 * 2_499
    assert sizes[1].masks == sizes[1].normalisation == 0
    assert round(4 * 2_499 / 1024, 1) == 9.8


def test_other_weights_are_shared_and_frozen_after_the_first_task(tiny_settings, tiny_stream):
    def backbone() -> nn.Module:
        return nn.Sequential(nn.ConvTranspose2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2), nn.ReLU())

    learner, tasks = BatchEnsemble(backbone, tiny_settings()), tiny_stream()
    drawn = learner.weight("0.weight").clone()
    learner.learn(tasks[0])
    trained, answers = learner.weight("0.weight").clone(), logits(learner, tasks, 1)
    learner.learn(tasks[1])
    assert not torch.equal(drawn, trained)
    assert torch.equal(learner.weight("0.weight"), trained)
    assert torch.equal(learner.network(1).backbone.get_parameter("0.weight"), trained)
    assert all(map(torch.equal, answers, logits(learner, tasks, 1)))
    assert set(learner.factors[1]) == {"2.weight"}


def test_a_backbone_without_layers_is_refused(tiny_settings):
    with pytest.raises(NetworkError, match="batch_ensemble multiplies convolutions and linear layers"):
        BatchEnsemble(lambda: nn.ConvTranspose2d(1, 4, 3), tiny_settings())
