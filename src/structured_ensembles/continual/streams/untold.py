"""How well a learner answers when nobody tells it the task, measured on a stream that it has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from structured_ensembles.continual.learner.learner import ContinualLearner
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.data.sources.records import as_float
from structured_ensembles.types import Prediction

BATCH = 20
"""So many images of one task are asked about together, as in published evaluations."""


@dataclass(frozen=True)
class Untold:
    """Answers without a task id, and with one; shares and AUROCs are means over the tasks.

    Attributes:
        told: The share of images whose class is right when the task is told.
        right: The share whose task and class are both right when it is not.
        task: The share of single images whose task is right.
        batch: The share of batches of `BATCH` images whose task is right.
        auroc: By the score of a task, its images against those of all other tasks.
        novelty: By the highest score of the tasks before it, images of those against a task's own, as if it were new:
            0.5 is chance. The first task has none.
        nbytes: What the statistics take that tell tasks apart, beside `Memory`.
    """

    told: float
    right: float
    task: float
    batch: float
    auroc: float
    novelty: float
    nbytes: int


def measure(learner: ContinualLearner, tasks: Sequence[Task], seed: int = 0) -> Untold:
    """Ask a learner about the test images of all T tasks that it has learned.

    Args:
        learner: Has learned exactly these tasks, in this order; at least two.
        tasks: Of the stream.
        seed: Which images of a task make a batch.
    """
    pixels = [as_float(task.test.images) for task in tasks]
    answers = [learner.predict(images) for images in pixels]
    told = [
        _right(learner.predict(images, task=number), task)
        for number, (images, task) in enumerate(zip(pixels, tasks, strict=True))
    ]
    found = [answer.tasks == number for number, answer in enumerate(answers)]
    both = [fits & _right(answer.prediction, task) for fits, answer, task in zip(found, answers, tasks, strict=True)]
    scores = [answer.scores for answer in answers]
    return Untold(
        told=_mean(told),
        right=_mean(both),
        task=_mean(found),
        batch=fmean(_batches(of_task, number, seed) for number, of_task in enumerate(scores)),
        auroc=fmean(_apart(scores, number) for number in range(len(tasks))),
        novelty=fmean(_new(scores, number) for number in range(1, len(tasks))),
        nbytes=sum(record.profile.nbytes for record in learner.tasks if record.profile is not None),
    )


def _right(prediction: Prediction, task: Task) -> Tensor:
    return prediction.classes == task.test.labels


def _mean(right: Sequence[Tensor]) -> float:
    return fmean(float(of_task.double().mean()) for of_task in right)


def _batches(scores: Tensor, number: int, seed: int) -> float:
    """The share of batches of a task's images, (N, T) scores, whose mean is highest for that task.

    That is what `inference.infer` decides with `Per.BATCH`. The images that do not fill a batch are left out, unless
    there is none.
    """
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
    whole = [part for part in torch.split(order, BATCH) if len(part) == BATCH] or [order]
    return fmean(int(scores[part].mean(dim=0).argmax()) == number for part in whole)


def _apart(scores: Sequence[Tensor], number: int) -> float:
    """The AUROC of one task's score: its own images, (N, T), against those of the others."""
    own = torch.cat([torch.full((len(of_task),), task == number) for task, of_task in enumerate(scores)])
    return float(roc_auc_score(own, torch.cat([of_task[:, number] for of_task in scores])))


def _new(scores: Sequence[Tensor], number: int) -> float:
    """The AUROC of the tasks before a number: their images against those of that task, which they have not seen."""
    usual = [of_task[:, :number].max(dim=1).values for of_task in scores[: number + 1]]
    known = torch.cat([torch.full((len(of_task),), task < number) for task, of_task in enumerate(usual)])
    return float(roc_auc_score(known, torch.cat(usual)))
