"""Answers that no task id was given for, on a whole stream: against obvious loops over single answers."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
import torch

from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.continual.streams.untold import BATCH, measure
from structured_ensembles.data.sources import Split, as_float
from structured_ensembles.options.choices import Per

from ..conftest import tiny_backbone, tiny_settings, tiny_stream


@pytest.fixture(name="learned", scope="module")
def _learned():
    tasks = tiny_stream()
    learner = ContinualLearner(tiny_backbone, settings=tiny_settings(epochs=1))
    for task in tasks:
        learner.learn(task.train, task.held_out, name=task.name, classes=task.classes)
    return learner, tasks, measure(learner, tasks, seed=3)


def wins(high: list[float], low: list[float]) -> float:
    """How often one of the first is above one of the second, a tie counting half: the definition of the AUROC."""
    return fmean(1.0 if a > b else 0.5 if a == b else 0.0 for a in high for b in low)


def scores_of(learner: ContinualLearner, task, of: int) -> list[float]:
    return learner.predict(as_float(task.test.images)).scores[:, of].tolist()


def test_shares_are_those_of_a_loop_over_images(learned) -> None:
    learner, tasks, found = learned
    told, right, which = [], [], []
    for number, task in enumerate(tasks):
        answers = [
            (learner.predict(x[None], task=number), learner.predict(x[None])) for x in as_float(task.test.images)
        ]
        classes = task.test.labels.tolist()
        told.append(fmean(int(a.classes) == y for (a, _), y in zip(answers, classes, strict=True)))
        which.append(fmean(int(b.tasks) == number for _, b in answers))
        right.append(
            fmean(
                int(b.tasks) == number and int(b.prediction.classes) == y
                for (_, b), y in zip(answers, classes, strict=True)
            )
        )
    assert (found.told, found.right, found.task) == pytest.approx((fmean(told), fmean(right), fmean(which)))
    assert found.right <= min(found.told, found.task)


def test_batches_are_decided_as_the_learner_decides_them(learned) -> None:
    learner, tasks, found = learned
    expected = []
    for number, task in enumerate(tasks):
        order = torch.randperm(len(task.test), generator=torch.Generator().manual_seed(3))[:BATCH]
        assert len(order) == BATCH > len(task.test) - BATCH  # exactly one batch
        expected.append(int(learner.predict(as_float(task.test.images[order]), per=Per.BATCH).tasks[0]) == number)
    assert found.batch == fmean(expected)


def test_aurocs_are_shares_of_pairs(learned) -> None:
    learner, tasks, found = learned
    own = [
        wins(
            scores_of(learner, task, number),
            [
                one
                for other, foreign in enumerate(tasks)
                if other != number
                for one in scores_of(learner, foreign, number)
            ],
        )
        for number, task in enumerate(tasks)
    ]
    assert found.auroc == pytest.approx(fmean(own))


def test_a_task_is_new_to_the_tasks_before_it(learned) -> None:
    learner, tasks, found = learned

    def usual(task, before: int) -> list[float]:
        return [max(row[:before]) for row in learner.predict(as_float(task.test.images)).scores.tolist()]

    new = [
        wins([one for task in tasks[:number] for one in usual(task, number)], usual(tasks[number], number))
        for number in (1, 2)
    ]
    assert found.novelty == pytest.approx(fmean(new))


def test_few_images_are_one_batch(learned) -> None:
    learner, tasks, _ = learned
    few = [replace(task, test=Split(task.test.images[:5], task.test.labels[:5])) for task in tasks]
    found = measure(learner, few)
    expected = [
        int(learner.predict(as_float(task.test.images), per=Per.BATCH).tasks[0]) == number
        for number, task in enumerate(few)
    ]
    assert found.batch == fmean(expected)


def test_bytes_are_those_of_the_profiles(learned) -> None:
    learner, _, found = learned
    assert found.nbytes == sum(record.profile.nbytes for record in learner.tasks) > 0
