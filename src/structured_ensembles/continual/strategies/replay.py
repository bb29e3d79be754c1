"""Experience replay: some images of each class are kept, and learned again with every later task.

Rolnick et al. 2019, https://arxiv.org/abs/1811.11682, and Chaudhry et al. 2019, https://arxiv.org/abs/1902.10486.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch

from structured_ensembles.continual.learner.memory import Served
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies._routing import Routed, joined, tagged
from structured_ensembles.continual.strategies.base import SharedBackbone, served_examples
from structured_ensembles.data.sources.records import Split
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.seeding import derived_seed
from structured_ensembles.types import Architecture

_CHOICE = 3
"""What the seed of the kept images is derived with."""


class Replay(SharedBackbone):
    """Naive fine-tuning on batches of twice the size, of which about half are images kept of earlier tasks.

    Each sample goes through the head of its own task, and heads of earlier tasks go on learning. The best epoch is
    chosen by the held-out images of the new task alone: those of earlier tasks are not kept.

    Args:
        backbone: As for every `Strategy`.
        settings: As for every `Strategy`.
        seed: As for every `Strategy`.
        images: How many images are kept at most, as many of each class.

    Raises:
        SettingsError: ``images`` is below 1.
    """

    name: ClassVar[str] = "replay"
    forgets: ClassVar[bool] = True
    kept: tuple[Split, ...] = ()

    def __init__(
        self, backbone: Architecture, settings: ContinualSettings, seed: int = 0, *, images: int = 200
    ) -> None:
        super().__init__(backbone, settings, seed)
        if not images >= 1:
            raise SettingsError(f"images {images} must be at least 1: replay keeps so many")
        self.images = images

    def _learn(self, task: Task, directory: Path | None) -> None:
        each = self._of_each_class(task)
        number = len(self.tasks)
        network = Routed(self.shared, [*self.heads, self.make_head(self.shared, task, number)])
        train, settings = tagged(task.train, number), self.settings.training
        if self.kept:
            past = joined([tagged(split, t) for t, split in enumerate(self.kept)])
            train = joined([train, _repeated(past, len(train))])
            settings = replace(settings, batch_size=2 * settings.batch_size)
        trained = self.train(network, train, tagged(task.held_out, number), directory, settings=settings)
        self.shared, self.heads = trained.backbone, tuple(trained.heads)
        kept = (*self.kept, _shuffled(task.train, derived_seed(self.seed, _CHOICE, number)))
        self.kept = tuple(_first_of_each_class(split, each) for split in kept)

    def _of_each_class(self, task: Task) -> int:
        classes = len(task.classes) + sum(len(learned.classes) for learned in self.tasks)
        if self.images < classes:
            raise SettingsError(
                f"images {self.images} cannot hold one of each of the {classes} classes so far: keep {classes} or more"
            )
        return self.images // classes

    def served(self) -> Served:
        """The backbone, the heads, and the images that are kept."""
        return {**super().served(), "data": served_examples(self.kept)}


def _repeated(split: Split, least: int) -> Split:
    """The examples over and over until they are at least so many, or all of them once if they are more."""
    return split.part(torch.arange(max(least, len(split))) % len(split))


def _shuffled(split: Split, seed: int) -> Split:
    return split.part(torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)))


def _first_of_each_class(split: Split, count: int) -> Split:
    places = torch.empty_like(split.labels)
    for label in torch.unique(split.labels):
        members = split.labels == label
        places[members] = torch.arange(int(members.sum()))
    return split.part(places < count)
