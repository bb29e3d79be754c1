"""Answers without a task id: which task an input belongs to, told by how usual it looks to each task's network.

Heads that know two classes are sure of everything, also of what they have never seen. So the default score is the
distance of an input's features to those of the task's own classes (Lee et al. 2018, arXiv 1807.03888); entropy, energy
and the highest probability are there to compare with. Every score is measured in standard deviations from its mean on
held-out examples of the task, which makes the scores of different tasks comparable.

Shapes: B inputs, T tasks, K classes of a task, d features that a task reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from structured_ensembles.channels import surgery
from structured_ensembles.continual.learner import ownership
from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.learner.state import Profile, State, whole
from structured_ensembles.data.examples import Examples
from structured_ensembles.options.choices import CrossBlock, Per, Score
from structured_ensembles.prediction.temperature import fit_temperature
from structured_ensembles.prediction.uncertainty import entropy, predict_from_logits
from structured_ensembles.seeding import seeded
from structured_ensembles.types import Prediction

MOST_EXAMPLES = 2000
"""A task is described by so many of its examples at most, spread over the dataset."""

_SHRINKAGE = 0.1
"""Of the covariance, towards the same variance in every direction: a few hundred examples do not tell all of them."""
_SMALLEST = 1e-6


class Answer(NamedTuple):
    """What the network of one task makes of inputs.

    Attributes:
        features: (B, d), means over positions where they are maps.
        logits: (B, K).
    """

    features: Tensor
    logits: Tensor


@dataclass(frozen=True, eq=False)
class Inferred:
    """What the network says about B inputs of unknown tasks.

    Attributes:
        tasks: (B,), the most likely task of each input, int64.
        weights: (B, T), how much speaks for each task, sums to 1; comparable within a stream, not calibrated.
        scores: (B, T), in standard deviations from what is usual for the task: far below 0 everywhere, an input
            belongs to none. With `Per.BATCH` that of the batch, in every row.
        prediction: Of the most likely task's network, its classes first; K is that of the task with most classes.
    """

    tasks: Tensor
    weights: Tensor
    scores: Tensor
    prediction: Prediction

    @property
    def certainty(self) -> Tensor:
        """(B,), the weight of the most likely task."""
        return self.weights.max(dim=1).values


def infer(
    state: State,
    rule: CrossBlock,
    inputs: Tensor,
    *,
    per: Per = Per.SAMPLE,
    score: Score = Score.DISTANCE,
    batch_size: int = 256,
) -> Inferred:
    """Answer inputs without being told their task.

    Args:
        state: Of at least one task.
        rule: Under ZERO, and unless tasks have normalisations of their own, one pass through the backbone serves all.
        inputs: (B, ...).
        per: Whether inputs that come together belong together.
        score: By what a task is told.
        batch_size: So many inputs are run at a time.
    """
    parts = [read(state, rule, part) for part in torch.split(inputs, batch_size)]
    answers = [Answer(*map(torch.cat, zip(*of_task, strict=True))) for of_task in zip(*parts, strict=True)]
    columns = [_standardised(_profile(state, task), answer, score) for task, answer in enumerate(answers)]
    scores = torch.stack(columns, dim=1)
    if per is Per.BATCH:
        # The mean of B independent scores deviates by one over the root of B.
        scores = (scores.mean(dim=0) * math.sqrt(len(scores))).expand_as(scores)
    tasks = scores.argmax(dim=1)
    logits = _padded([answer.logits for answer in answers])[tasks, torch.arange(len(tasks))]
    return Inferred(tasks, scores.softmax(dim=1), scores, predict_from_logits(logits.unsqueeze(0)))


@torch.no_grad()
def read(state: State, rule: CrossBlock, inputs: Tensor) -> list[Answer]:
    """What the networks of all tasks make of inputs, by one pass through the backbone where that is the same."""
    tasks = range(len(state.heads))
    if rule is CrossBlock.ZERO and not any(state.norms):
        # Older features are the same under the gates of the newest task.
        features = _features(state, tasks[-1], inputs)
        return [_answer(state, task, features) for task in tasks]
    return [_answer(state, task, _features(state, task, inputs)) for task in tasks]


def profiled(state: State, train: Examples, held_out: Examples) -> State:
    """The state with a profile of its newest task.

    Args:
        state: Of at least one task.
        train: What the task was learned from: they tell what its classes look like.
        held_out: Other examples of it, that were not trained on: they tell what is usual.
    """
    *older, record = state.tasks
    with seeded(0):  # transforms may draw at random
        profile = measured(_seen(state, train), _seen(state, held_out))
    return replace(state, tasks=(*older, replace(record, profile=profile)))


Seen = tuple[Answer, Tensor]
"""Answers and labels (B,)."""


def measured(train: Seen, held_out: Seen) -> Profile:
    """The profile of a task.

    Args:
        train: What its network made of training examples.
        held_out: And of others; of a single one there is no spread, and training examples tell what is usual.
    """
    (features, _), labels = train
    wide, classes = features.double(), torch.unique(labels)
    means = torch.stack([wide[labels == label].mean(dim=0) for label in classes])
    rest = wide - means[torch.searchsorted(classes, labels)]
    covariance = rest.T @ rest / len(rest)
    floor = _SHRINKAGE * covariance.diagonal().mean().clamp_min(_SMALLEST)
    precision = torch.linalg.inv(covariance + floor * torch.eye(len(covariance), dtype=wide.dtype))
    answer, truth = held_out
    temperature = fit_temperature(answer.logits.softmax(dim=1), truth)
    # An inverse comes column by column, a file gives rows, and rounding tells them apart.
    bare = Profile(temperature, means.float(), precision.float().contiguous(), torch.empty(0))
    usual = answer if len(truth) > 1 else train[0]
    raw = torch.stack([_score(bare, usual, score).double() for score in Score])
    spread = raw.std(dim=1, correction=0).clamp_min(_SMALLEST)
    return replace(bare, usual=torch.stack([raw.mean(dim=1), spread], dim=1))


@torch.no_grad()
def _seen(state: State, examples: Examples) -> Seen:
    """What the newest task's network makes of some examples, drawn at random: labels may come in a rhythm."""
    task, generator = len(state.heads) - 1, torch.Generator().manual_seed(0)
    drawn = torch.randperm(len(examples), generator=generator)[:MOST_EXAMPLES].sort().values
    batches = examples.part(drawn).batches(256, 0, shuffle=False)
    found = [(_answer(state, task, _features(state, task, x.cpu())), labels.cpu()) for x, labels in batches]
    answers, labels = zip(*found, strict=True)
    return Answer(*map(torch.cat, zip(*answers, strict=True))), torch.cat(labels).long()


def _features(state: State, task: int, inputs: Tensor) -> Tensor:
    """What the backbone gives under the gates of a task: (B, d) or (B, C, H, W), all channels."""
    network = whole(state, task)
    with surgery.zeroed(network, state.groups, ownership.active(state.owners, task)):
        features: Tensor = network.backbone(inputs)
    return features


def _answer(state: State, task: int, features: Tensor) -> Answer:
    """A task's answer to features of all channels, of which it reads its own."""
    network = TaskNetwork(state.backbone, state.heads[task])
    active = ownership.active(state.owners, task)
    own = _channels(ownership.read_by_head(network, state.groups, active), features.shape[1])
    # `where`, not a product: zero times infinity is not zero.
    gated = features.where(own.view(1, -1, *[1] * (features.dim() - 2)), torch.zeros_like(features))
    pooled = features.flatten(2).mean(dim=2) if features.dim() > 2 else features
    return Answer(pooled[:, own], network.head(gated))


def _channels(reads: dict[str, Tensor], channels: int) -> Tensor:
    """(C,): of the backbone's features, which ones a head reads, given by the positions of its first layer."""
    masks = list(reads.values())
    # A flatten puts all positions of a map side by side.
    return masks[0].view(channels, -1)[:, 0] if masks else torch.ones(channels, dtype=torch.bool)


def _profile(state: State, task: int) -> Profile:
    profile = state.tasks[task].profile
    if profile is None:
        msg = f"task {task} has no profile"
        raise TypeError(msg)
    return profile


def _standardised(profile: Profile, answer: Answer, score: Score) -> Tensor:
    """(B,): a score in standard deviations from what is usual."""
    usual = profile.usual[list(Score).index(score)]
    return (_score(profile, answer, score) - usual[0]) / usual[1]


def _score(profile: Profile, answer: Answer, score: Score) -> Tensor:
    logits = answer.logits / profile.temperature
    if score is Score.DISTANCE:
        apart = answer.features[:, None] - profile.means
        squares: Tensor = torch.einsum("bkd,de,bke->bk", apart, profile.precision, apart)
        return -squares.min(dim=1).values.clamp_min(0).sqrt()
    if score is Score.ENERGY:
        return logits.logsumexp(dim=1)
    probabilities = logits.softmax(dim=1)
    if score is Score.MAX_PROBABILITY:
        return probabilities.max(dim=1).values
    return -entropy(probabilities) / math.log(logits.shape[1])


def _padded(logits: list[Tensor]) -> Tensor:
    """(T, B, K): logits of all tasks, minus infinity for classes that a task does not have."""
    most = max(part.shape[1] for part in logits)
    return torch.stack([nn.functional.pad(part, (0, most - part.shape[1]), value=-math.inf) for part in logits])
