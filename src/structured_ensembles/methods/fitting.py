"""What all methods share when they are fitted: the same split, first draw, training and file."""

from __future__ import annotations

import operator
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from structured_ensembles import implicit
from structured_ensembles.artefact import file as artefact
from structured_ensembles.artefact.file import Record
from structured_ensembles.data.batches import refuse_repeats
from structured_ensembles.data.examples import Data, Examples, fingerprint
from structured_ensembles.errors import DataError, NetworkError, SettingsError, StructensError, first_line
from structured_ensembles.files.marks import check_mark, mark
from structured_ensembles.implicit import Form
from structured_ensembles.networks import Given, NetworkSpec, sizes
from structured_ensembles.networks.checks import check_answers, check_output, check_shape, check_training
from structured_ensembles.networks.given import architecture, check_drawable
from structured_ensembles.networks.modules import draw
from structured_ensembles.networks.stored import check_initialised, check_stored
from structured_ensembles.options.choices import Family, Preset
from structured_ensembles.options.ensemble import Settings
from structured_ensembles.options.presets import settings
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.prediction.calibrating import calibrate
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.seeding import derived_seed, seeded
from structured_ensembles.training.loop import Trained, train
from structured_ensembles.types import Channels, Group

if TYPE_CHECKING:
    from typing_extensions import Self

MOST_SUMMARISED = 64
"""Up to so many members, the artefact's summary tells how each was trained; beyond, it gives their mean."""

_DRAW, _SPLIT, _TRAIN, _REST = 0, 1, 4, 5
"""The parts of a run that have seeds of their own; search and ranking have 2 and 3."""


@dataclass(frozen=True)
class Fold:
    """What one fit learns from.

    Attributes:
        train: What is learned from.
        held_out: What chooses the best epoch.
        seed: Of the whole fit.
        directory: Where a stopped fit goes on from; None keeps nothing.
    """

    train: Examples
    held_out: Examples
    seed: int
    directory: Path | None

    @cached_property
    def fingerprint(self) -> str:
        """Tells these data from others; empty without a directory."""
        return "" if self.directory is None else fingerprint(self.train, self.held_out)

    def folder(self, name: str) -> Path | None:
        """Where a part of the fit keeps its state."""
        return None if self.directory is None else self.directory / name


@dataclass(frozen=True)
class Built:
    """What a method made.

    Attributes:
        trained: The members, trained; or the one network that answers M times.
        form: Of that network.
        groups: Groups of the base's topology, if members were cut from it.
        channels: The channels that each member kept, in the same order.
    """

    trained: Sequence[Trained]
    form: Form | None = None
    groups: tuple[Group, ...] = ()
    channels: tuple[Channels, ...] = ()


class Fittable(Ensemble):
    """An ensemble that can be fitted; each method says how its members come about.

    Args:
        base: What makes the base network.
        members: M, at least 1.
        settings: How; None takes the default preset for the network's family.
    """

    method: ClassVar[str]
    budgeted: ClassVar[bool] = False
    """Whether the size follows ``settings.budget``; other methods have a size of their own."""
    draws_members: ClassVar[bool] = False
    """Whether each member starts from a draw of its own, which a module, drawn already, cannot give."""

    def __init__(self, base: Given, members: int = 4, settings: Settings | None = None) -> None:
        super().__init__()
        self.count = _count(members)
        if self.draws_members:
            check_drawable(self.method, base)
        self.settings = _settings(default_settings(base) if settings is None else settings)
        self.spec = base if isinstance(base, NetworkSpec) else None
        self.architecture = architecture(base)
        self.trained: Sequence[Trained] = ()
        self.seconds = 0.0
        self.training_flops = 0
        """Of everything that fitting did, a backward pass as two forward ones; known once fitted."""

    @abstractmethod
    def build(self, fold: Fold) -> Built:
        """Make and train the members."""

    def preparation_flops(self, fold: Fold) -> int:  # noqa: ARG002 (for methods that prepare something)
        """Of what comes before training."""
        return 0

    def fit(
        self,
        train: Data,
        held_out: Data | None = None,
        *,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        directory: str | Path | None = None,
    ) -> Self:
        """Learn from data; the result is a function of the arguments, to the bit, on one machine.

        Args:
            train: A DataLoader, a dataset of (x, y), batches, or `Examples`; x as the network takes it, y a class.
            held_out: What chooses the best epoch; None holds out a stratified share of ``train``.
            classes: Names of the classes; None numbers them.
            seed: Of everything random, at least 0.
            directory: Where to keep the state; a fit that was stopped goes on from there.

        Raises:
            DataError: The data cannot be learned from.
            NetworkError: The network cannot be used; the message names the layer.
            SettingsError: A setting is outside its limits; a BudgetError names the smallest possible budget.
        """
        start = time.monotonic()
        if not hasattr(seed, "__index__"):
            raise SettingsError(f"seed {seed!r} must be a whole number of at least 0")
        seed, folder = operator.index(seed), None if directory is None else Path(directory)
        if folder is not None and folder.exists() and not folder.is_dir():
            raise SettingsError(f"directory {folder} is a file: take another")
        # Stages have seeds of their own, but examples may be varied at random whenever they are read.
        with seeded(derived_seed(seed, _REST)):
            fold = self._fold(train, held_out, classes, seed, folder)
            refusal = f"{folder} holds a fit of other data or another seed: take another directory"
            check_mark(folder, fold.fingerprint, refusal)
            built = self.build(fold)
            self.members = nn.ModuleList([trained.network for trained in built.trained])
            self.trained = built.trained
            self.training_flops = self.preparation_flops(fold) + sum(_flops(one, fold) for one in built.trained)
            self._record = self._recorded(fold, built)
            self.eval()
            self._record = self._recorded(fold, built, self._calibration(fold))
        self.seconds = time.monotonic() - start
        return self

    def draw(self, seed: int, member: int = 0, form: Form | None = None) -> nn.Module:
        """The freshly initialised base network of a member, on the CPU; in a form that answers M times if one is given.

        Raises:
            NetworkError: What should make the network does not.
        """
        try:
            make = self.architecture
            if form is not None:
                make = partial(implicit.make, self.spec or make, form, self.count)
            network = draw(make, derived_seed(seed, _DRAW, member))
        except StructensError:
            raise
        except Exception as error:
            raise NetworkError(
                f"the network cannot be made ({first_line(error)}): give a class or a function that is called without "
                "arguments, for example lambda: MyNet(10)"
            ) from error
        if not isinstance(network, nn.Module):
            raise NetworkError(f"what should make the network made a {type(network).__name__}: it must be an nn.Module")
        return network.cpu()

    def train_member(
        self, network: nn.Module, fold: Fold, member: int, training: TrainingSettings | None = None
    ) -> Trained:
        """Train one member on its own, as all methods train unless it is told otherwise."""
        mark(fold.directory, fold.fingerprint)
        return train(
            network.to(device()),
            fold.train,
            fold.held_out,
            training or self.settings.training,
            seed=derived_seed(fold.seed, _TRAIN, member),
            label=self.method if self.count == 1 else f"{self.method} · member {member + 1} of {self.count}",
            directory=fold.folder(f"member-{member}"),
        )

    def train_shared(self, form: Form, fold: Fold) -> Built:
        """Train one network that answers M times."""
        network = self.draw(fold.seed, form=form)
        check_answers(network, self.method, fold.train.example)
        return Built([self.train_member(network, fold, 0)], form)

    def _fold(
        self, train: Data, held_out: Data | None, classes: Sequence[str] | None, seed: int, directory: Path | None
    ) -> Fold:
        if held_out is None:
            refuse_repeats(train)
        examples = Examples.of(train, classes)
        network = self._checked(examples, seed)
        if held_out is None:
            learned, kept = examples.split(self.settings.held_out, derived_seed(seed, _SPLIT))
        else:
            learned, kept = examples, Examples.of(held_out, examples.classes)
            check_output(network, kept.example, len(examples.classes))
        _check_classes(examples, kept)
        return Fold(learned, kept, seed, directory)

    def _checked(self, examples: Examples, seed: int) -> nn.Module:
        """The base network, found to be one that can learn from the examples and be saved."""
        network, example = self.draw(seed), examples.example
        check_initialised(network)
        check_output(network, example, len(examples.classes))
        check_shape(self.spec, example)
        check_stored(network, self.architecture, example)
        check_training(network, example)
        artefact.specs(network.state_dict())  # what cannot be saved is not worth training
        return network

    def _recorded(self, fold: Fold, built: Built, calibration: Mapping[str, Any] | None = None) -> Record:
        return Record(
            method=self.method,
            members=self.count,
            classes=fold.train.classes,
            input_shape=tuple(fold.train.example.shape[1:]),
            combine=self.settings.combine,
            network=self.spec,
            form=built.form,
            groups=built.groups,
            channels=built.channels,
            summary={"seed": fold.seed, **(calibration or {}), **_members_summary(built.trained)},
        )

    def _calibration(self, fold: Fold) -> dict[str, Any]:
        """What the held-out examples say about how sure to be."""
        pairs = [(self.logits(inputs), labels) for inputs, labels in fold.held_out.batches(256, 0, shuffle=False)]
        logits, labels = torch.cat([one for one, _ in pairs], dim=1), torch.cat([one for _, one in pairs])
        return calibrate(logits.cpu(), labels.cpu().long(), self.settings.combine)


def _check_classes(train: Examples, held_out: Examples) -> None:
    """Refuse labels that are no class, and examples to learn from that have one class only."""
    classes = len(train.classes)
    for part in (train, held_out):
        if int(part.labels.max()) >= classes:
            raise DataError(
                f"label {int(part.labels.max())} is outside 0 ... {classes - 1}: there are {classes} classes"
            )
    if len(torch.unique(train.labels)) < 2:
        raise DataError("the training data have one class only: there is nothing to tell apart")


def _flops(trained: Trained, fold: Fold) -> int:
    """Of one training: every example forward and backward in every epoch."""
    example = fold.train.example.to(next(trained.network.parameters()).device)
    return round(sizes.training_flops(trained.network, example) * len(fold.train) * trained.epochs_run)


def _members_summary(trained: Sequence[Trained]) -> dict[str, Any]:
    """What training came to; the file has room for one number of each member, up to some number of them."""
    if len(trained) > MOST_SUMMARISED:
        return {"held_out_accuracy": round(fmean(one.held_out_accuracy for one in trained), 4)}
    return {
        "best_epochs": [one.best_epoch for one in trained],
        "held_out_accuracies": [round(one.held_out_accuracy, 4) for one in trained],
    }


def device() -> torch.device:
    """Where fitting runs: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_settings(base: Given) -> Settings:
    """The default preset for a base network's family."""
    return settings(Preset.DEFAULT, Family.of(base.name) if isinstance(base, NetworkSpec) else Family.OTHER)


def _count(members: object) -> int:
    if not (hasattr(members, "__index__") and (count := operator.index(members)) >= 1):
        raise SettingsError(f"members {members!r} must be a whole number of at least 1")
    return count


def _settings(given: object) -> Settings:
    if not isinstance(given, Settings):
        raise SettingsError(f"settings must be Settings, as presets.settings() makes them, not {given!r}")
    return given
