"""Answers without a task id: the right task by sample and by batch, in one pass, with numbers that a loop gives too."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, relu
from torch.utils.data import TensorDataset

from structured_ensembles.continual.learner import inference
from structured_ensembles.continual.learner.inference import Answer
from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.data.examples import Examples
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.options.choices import CrossBlock, Norms, Optimiser, Per, Score
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.streams import ContinualSettings, HeadKind
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.prediction.uncertainty import entropy

SETTINGS = ContinualSettings(
    training=TrainingSettings(
        epochs=4, batch_size=16, optimiser=Optimiser.ADAM, nesterov=False, learning_rate=0.02, weight_decay=0
    ),
    search=SearchSettings(max_steps=1, batch_size=12),
    held_out=0.25,
)
SHAPE = (1, 6, 6)
CLASSES = (2, 3, 2)


def examples(task, seed, count=48):
    """Noise with one bright row for each class of each task."""
    generator = torch.Generator().manual_seed(100 * task + seed)
    labels = torch.arange(count) % CLASSES[task]
    pixels = torch.rand(count, *SHAPE, generator=generator)
    pixels[torch.arange(count), 0, (labels + 2 * task) % 6] += 1.5
    if task == 2:
        pixels = pixels.transpose(2, 3).contiguous()
    return TensorDataset(pixels, labels)


class Residual(nn.Module):
    calls = 0

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, bias=False), nn.BatchNorm2d(12))
        self.block = nn.Sequential(nn.Conv2d(12, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 1))

    def forward(self, images):
        Residual.calls += 1
        hidden = relu(self.stem(images))
        return relu(hidden + self.block(hidden))


def _flattened():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 12), nn.ReLU())


def looped(make=Residual, **changes):
    """A stream that was hardly trained, by loops of one's own."""
    taught = ContinualLearner(make, settings=replace(SETTINGS, **changes))
    for task in range(3):
        data = examples(task, 0)
        with taught.task(data) as network:
            optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
            for _ in range(3):
                optimiser.zero_grad()
                cross_entropy(network(data.tensors[0]), data.tensors[1]).backward()
                optimiser.step()
    return taught


@pytest.fixture(scope="module")
def learned():
    taught = ContinualLearner(Residual, settings=SETTINGS)
    for task in range(3):
        taught.learn(examples(task, 0, 96))
    return taught


INPUTS = torch.cat([examples(task, 5, 8).tensors[0] for task in range(3)])


# --- which task -----------------------------------------------------------------------------------------------------


def test_the_task_of_most_samples_and_of_every_batch_is_right(learned):
    right = []
    for task in range(3):
        inputs, labels = examples(task, 1).tensors
        found = learned.predict(inputs)
        right.append((found.tasks == task).double().mean())
        hits = (found.tasks == task) & (found.prediction.classes == labels)
        known = learned.predict(inputs, task=task).classes == labels
        assert torch.equal(hits, known & (found.tasks == task))
        for batch in torch.split(inputs, 12):
            assert learned.predict(batch, per="batch").tasks.tolist() == [task] * 12
    assert min(right) > 0.8


def test_distance_beats_entropy_by_far(learned):
    def share(score):
        return sum(
            (learned.predict(examples(task, 1).tensors[0], score=score).tasks == task).double().mean()
            for task in range(3)
        )

    assert share(Score.DISTANCE) > share(Score.ENTROPY) + 0.3


def test_it_is_surer_where_it_is_right_and_inputs_of_no_task_are_far_from_all(learned):
    strange = learned.predict(3 * torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0)))
    known = learned.predict(INPUTS)
    assert strange.scores.max(dim=1).values.max() < known.scores.max(dim=1).values.min()
    assert torch.allclose(known.weights.sum(dim=1), torch.ones(24))
    assert torch.equal(known.weights.argmax(dim=1), known.tasks)
    assert torch.equal(known.certainty, known.weights.max(dim=1).values)


@pytest.mark.parametrize("score", Score)
def test_a_batch_is_the_mean_of_its_samples_in_its_own_deviations(learned, score):
    inputs = examples(1, 1, 9).tensors[0]
    single, batch = learned.predict(inputs, score=score), learned.predict(inputs, score=score, per=Per.BATCH)
    expected = single.scores.sum(dim=0) / 9 * 3
    torch.testing.assert_close(batch.scores, expected.expand(9, 3))
    assert batch.tasks.tolist() == [int(expected.argmax())] * 9


def test_the_prediction_is_that_of_the_inferred_task_and_of_no_class_that_it_lacks(learned):
    found = learned.predict(INPUTS)
    assert found.prediction.probabilities.shape == (24, 3)
    assert torch.allclose(found.prediction.probabilities.sum(dim=1), torch.ones(24))
    for at, task in enumerate(found.tasks.tolist()):
        expected = learned.predict(INPUTS[at : at + 1], task=task)
        given = found.prediction.probabilities[at]
        torch.testing.assert_close(given[: CLASSES[task]], expected.probabilities[0])
        assert not given[CLASSES[task] :].any()
        torch.testing.assert_close(found.prediction.predictive_entropy[at], expected.predictive_entropy[0])


def test_batches_make_no_difference(learned):
    whole, parts = learned.predict(INPUTS), learned.predict(INPUTS, batch_size=5)
    torch.testing.assert_close(whole.scores, parts.scores, rtol=1e-4, atol=1e-4)
    assert torch.equal(whole.tasks, parts.tasks)


# --- one pass -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, 1),
        ({"cross_block": CrossBlock.FROZEN}, 3),
        ({"cross_block": CrossBlock.TRAINABLE}, 3),
        ({"norms": Norms.TASK}, 3),
    ],
)
def test_one_pass_serves_all_tasks_where_older_features_stay_the_same(changes, passes):
    taught = looped(**changes)
    Residual.calls = 0
    answers = inference.read(taught.state, taught.settings.cross_block, INPUTS)
    assert Residual.calls == passes
    for task, answer in enumerate(answers):
        with torch.no_grad():
            assert torch.equal(answer.logits, taught.network(task)(INPUTS))


@pytest.mark.parametrize("head", HeadKind)
@pytest.mark.parametrize("make", [Residual, _flattened])
def test_features_are_what_the_compact_network_of_the_task_gives(make, head):
    taught = looped(make, head=head)
    for task, answer in enumerate(inference.read(taught.state, CrossBlock.ZERO, INPUTS)):
        with torch.no_grad():
            features = taught.export_task(task).backbone(INPUTS)
        expected = features.mean(dim=(2, 3)) if features.dim() == 4 else features
        torch.testing.assert_close(answer.features, expected)


@pytest.mark.parametrize("norms", Norms)
def test_nothing_is_copied_to_answer(norms, monkeypatch):
    taught = looped(norms=norms)
    expected = [taught.predict(INPUTS, task=task).probabilities for task in range(3)]
    assert not torch.equal(expected[0], taught.predict(INPUTS, task=1).probabilities[:, :2])
    known = taught.predict(INPUTS)
    for kind in (torch.Tensor, nn.Parameter):
        monkeypatch.setattr(kind, "__deepcopy__", lambda *_: pytest.fail("a tensor was copied"))
    assert torch.equal(taught.predict(INPUTS).scores, known.scores)
    for task in range(3):
        assert torch.equal(taught.predict(INPUTS, task=task).probabilities, expected[task])
    modules = [module for part in (taught.state.backbone, *taught.state.heads) for module in part.modules()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


# --- the profile of a task ------------------------------------------------------------------------------------------


def answered(seed, count=30, width=4, classes=2):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    features = torch.randn(count, width, generator=generator) + labels[:, None]
    return Answer(features, torch.randn(count, classes, generator=generator) * 3), labels


def test_scores_by_a_slow_loop():
    train, held_out = answered(0), answered(1)
    profile = inference.measured(train, held_out)
    (features, _), labels = train
    means = [features[labels == label].double().mean(dim=0) for label in range(2)]
    rest = [row.double() - means[label] for row, label in zip(features, labels.tolist(), strict=True)]
    covariance = sum(torch.outer(row, row) for row in rest) / len(rest)
    covariance += torch.eye(4) * 0.1 * covariance.diagonal().mean()
    precision = torch.linalg.inv(covariance)
    answer, _ = held_out
    tempered = (answer.logits / profile.temperature).double()
    for at, row in enumerate(answer.features.double()):
        distance = min(float((row - mean) @ precision @ (row - mean)) ** 0.5 for mean in means)
        probabilities = tempered[at].softmax(dim=0)
        expected = {
            Score.DISTANCE: -distance,
            Score.ENTROPY: -float(entropy(probabilities)) / math.log(2),
            Score.ENERGY: math.log(float(tempered[at].exp().sum())),
            Score.MAX_PROBABILITY: float(probabilities.max()),
        }
        for score, value in expected.items():
            assert float(inference._score(profile, answer, score)[at]) == pytest.approx(value, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("score", Score)
def test_held_out_scores_are_standard(score):
    train, held_out = answered(0), answered(1)
    standard = inference._standardised(inference.measured(train, held_out), held_out[0], score)
    assert float(standard.mean()) == pytest.approx(0, abs=1e-4)
    assert float(standard.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_classes_without_examples_and_features_that_never_change_do_no_harm():
    (features, logits), labels = answered(0)
    train = Answer(torch.zeros_like(features), torch.cat([logits, logits], dim=1)), labels * 2
    profile = inference.measured(train, train)
    assert profile.means.shape == (2, 4)
    assert profile.nbytes == 8 + 4 * (2 * 4 + 4 * 4) + 8 * 4 * 2
    assert all(inference._standardised(profile, train[0], score).isfinite().all() for score in Score)


def test_a_large_task_is_described_by_some_of_its_examples(monkeypatch):
    seen = []

    def watched(train, held_out):
        seen.append((len(train[1]), len(held_out[1])))
        return MEASURED(train, held_out)

    monkeypatch.setattr(inference, "measured", watched)
    monkeypatch.setattr(inference, "MOST_EXAMPLES", 10)
    looped()
    assert seen == [(10, 10)] * 3


MEASURED = inference.measured


def test_labels_in_a_rhythm_lose_no_class(monkeypatch):
    monkeypatch.setattr(inference, "MOST_EXAMPLES", 20)
    state, rhythm = looped().state, examples(2, 0, 60)  # every third example would be of one class
    labels = torch.arange(60) % 3 // 2
    uneven = Examples.of(TensorDataset(rhythm.tensors[0], labels))
    profile = inference.profiled(state, uneven, Examples.of(rhythm)).tasks[-1].profile
    assert len(profile.means) == 2


def test_of_one_held_out_example_there_is_no_spread_and_training_examples_tell_it():
    train, (answer, labels) = answered(0), answered(1, count=1)
    few, many = inference.measured(train, (answer, labels)), inference.measured(train, train)
    torch.testing.assert_close(few.usual[0], many.usual[0])
    assert (few.usual[:, 1] > 0.01).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_examples_may_lie_on_a_gpu():
    state, there = looped().state, examples(2, 0)
    known = Examples.of(there)
    here = inference.profiled(state, known, known).tasks[-1].profile
    moved = Examples.of(TensorDataset(*(part.cuda() for part in there.tensors)))
    torch.testing.assert_close(inference.profiled(state, moved, moved).tasks[-1].profile.usual, here.usual)


# --- what users do wrong --------------------------------------------------------------------------------------------


def test_what_cannot_be_answered(learned):
    with pytest.raises(SettingsError, match="no task has been learned"):
        ContinualLearner(Residual, settings=SETTINGS).predict(INPUTS)
    with pytest.raises(DataError, match=r"inputs of shape \(0, 1, 6, 6\): pass at least one of shape \(1, 6, 6\)"):
        learned.predict(INPUTS[:0])
    with pytest.raises(SettingsError, match="unknown per 'bach': did you mean 'batch'"):
        learned.predict(INPUTS, per="bach")
    with pytest.raises(SettingsError, match="unknown score 'enrgy': did you mean 'energy'"):
        learned.predict(INPUTS, score="enrgy")
