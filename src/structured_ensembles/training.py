"""Train one network: a member, or any other, the same way.

The epoch with the best held-out accuracy is what comes out, weights and buffers, whatever was trained after it.
"""

from __future__ import annotations

import copy
import importlib.util
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from structured_ensembles.augmentation import Augmentation, check_images
from structured_ensembles.errors import NetworkError, SettingsError, unknown
from structured_ensembles.labels import check_pair, sized
from structured_ensembles.seeding import derived_seed
from structured_ensembles.types import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch.utils.data import Dataset


class Optimiser(Choice):
    """What turns gradients into steps."""

    SGD = "sgd"
    """Stochastic gradient descent with momentum (published)."""
    ADAM = "adam"
    """Adam; weight decay is added to the gradient."""
    ADAMW = "adamw"
    """Adam with decoupled weight decay."""


class Schedule(Choice):
    """How the learning rate changes over the epochs."""

    CONSTANT = "constant"
    """Not at all."""
    MULTISTEP = "multistep"
    """Times gamma at each milestone, an epoch (published)."""
    COSINE = "cosine"
    """Down to zero along half a cosine, after each batch."""
    ONE_CYCLE = "one_cycle"
    """Up to the learning rate in the first 30 % of the batches, then down to almost nothing, after each batch."""


class Log(Choice):
    """Where the learning curve is written, if the training has a directory."""

    CSV = "csv"
    """``log/metrics.csv``."""
    TENSORBOARD = "tensorboard"
    """``log``, for TensorBoard: needs the extra of that name."""
    NONE = "none"
    """Nowhere; it is in the result all the same."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    Attributes:
        epochs: At most how many times every example is seen.
        max_steps: At most about how many batches: large sets get fewer epochs, at least one; None sets no limit.
        batch_size: B.
        optimiser: What turns gradients into steps.
        learning_rate: Of the optimiser; the highest one of the schedule.
        momentum: Of SGD.
        nesterov: Whether SGD looks ahead; needs momentum.
        weight_decay: Of the optimiser.
        schedule: How the learning rate changes.
        milestones: Of MULTISTEP, epochs in rising order.
        gamma: Of MULTISTEP, what the rate is multiplied by.
        patience: Stop after so many epochs without a higher held-out accuracy; None never does.
        augmentation: How the training images are varied.
        num_workers: Processes that read the data; 0 reads them in this one, which suits data in memory.
        log: Where the learning curve is written.

    Raises:
        SettingsError: Naming every value outside its limits.
    """

    epochs: int = 30
    max_steps: int | None = None
    batch_size: int = 64
    optimiser: Optimiser = Optimiser.SGD
    learning_rate: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Schedule = Schedule.ONE_CYCLE
    milestones: tuple[int, ...] = (50, 100, 150)
    gamma: float = 0.8
    patience: int | None = None
    augmentation: Augmentation = Augmentation.NONE
    num_workers: int = 0
    log: Log = Log.CSV

    def __post_init__(self) -> None:
        problems = [*_unknown_choices(self), *(message for wrong, message in _limits(self) if wrong)]
        if problems:
            raise SettingsError("; ".join(problems))


_CHOICES: Mapping[str, type[Choice]] = {
    "optimiser": Optimiser,
    "schedule": Schedule,
    "augmentation": Augmentation,
    "log": Log,
}


def _unknown_choices(settings: TrainingSettings) -> list[str]:
    given = {name: str(getattr(settings, name)) for name in _CHOICES}
    known = {name: [str(choice) for choice in kind] for name, kind in _CHOICES.items()}
    return [str(unknown(name, given[name], known[name])) for name in _CHOICES if given[name] not in known[name]]


def _limits(s: TrainingSettings) -> list[tuple[bool, str]]:
    """For each limit whether it is broken, and what to say then; written so that NaN breaks it."""
    rising = all(a < b for a, b in zip((0, *s.milestones), s.milestones, strict=False))
    return [
        (not s.epochs >= 1, f"epochs {s.epochs} must be at least 1"),
        (s.max_steps is not None and not s.max_steps >= 1, f"max_steps {s.max_steps} must be at least 1, or none"),
        (not s.batch_size >= 1, f"batch_size {s.batch_size} must be at least 1"),
        (not 0 < s.learning_rate < float("inf"), f"learning_rate {s.learning_rate} must be above 0, 0.05 for example"),
        (not 0 <= s.momentum < 1, f"momentum {s.momentum} must be in [0, 1), 0.9 for example"),
        (s.nesterov and s.momentum == 0, "nesterov needs momentum above 0: set nesterov to false"),
        (not 0 <= s.weight_decay < float("inf"), f"weight_decay {s.weight_decay} must be at least 0"),
        (not rising, f"milestones {tuple(s.milestones)} must be epochs from 1 on in rising order"),
        (not 0 < s.gamma <= 1, f"gamma {s.gamma} must be in (0, 1]"),
        (s.patience is not None and not s.patience >= 1, f"patience {s.patience} must be at least 1, or none"),
        (not s.num_workers >= 0, f"num_workers {s.num_workers} must be at least 0"),
    ]


@dataclass(frozen=True)
class Trained:
    """A trained network and how it came about.

    Attributes:
        network: In evaluation mode, on the device of the one it was made from, with the weights of the best epoch.
        best_epoch: Counted from 1: of the highest held-out accuracy; among equals the lowest held-out loss, the first.
        epochs_run: At least ``best_epoch``, fewer than asked for if patience ran out.
        held_out_accuracy: Of the best epoch, in [0, 1].
        held_out_loss: Of the best epoch.
        history: One row an epoch: epoch (from 1), train_loss (mean over the epoch, while it is learned),
            held_out_loss, held_out_accuracy, learning_rate (of the last step).
    """

    network: nn.Module
    best_epoch: int
    epochs_run: int
    held_out_accuracy: float
    held_out_loss: float
    history: tuple[Mapping[str, float], ...]


def train(
    network: nn.Module,
    train_set: Dataset[Any],
    held_out: Dataset[Any],
    settings: TrainingSettings,
    *,
    seed: int,
    label: str = "network",
    directory: Path | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> Trained:
    """Train a copy of a network, on a GPU if there is one, and give back the best of it.

    The result is a function of the arguments: dropout, shuffling and augmentation are seeded by epoch, and the global
    random generators are left as they were. ``network`` itself is never changed, and no backward pass reaches
    parameters that do not require gradients. All modules of the copy are trained in training mode.

    With a directory, the state after each epoch is kept in ``training.ckpt`` there. Called again with the same
    arguments after any kind of stop, the training goes on from there and ends bit-identical; called again after its
    end, it returns at once.

    Args:
        network: Maps inputs (B, ...) to logits (B, K), or (M, B, K) if it answers M times (`shared`). Of its
            parameters those that its ``no_weight_decay()`` names, if it has that, keep their size.
        train_set: Examples (x, y) to learn from, x as the network takes it, y a class.
        held_out: Examples to choose the best epoch by.
        settings: How to train.
        seed: Of everything random, at least 0.
        label: What the progress bar and the errors call the network, for example ``"member 2 of 4"``.
        directory: Where to keep the checkpoint and the log; made if missing. None writes nothing.
        loss: Of logits (B, K) and labels (B,), the mean over the batch.

    Raises:
        SettingsError: If the loss becomes infinite or NaN (the learning rate is too large), if the directory holds
            another training, or if the log or the seed is impossible.
        DataError: If a set is empty or not map-style, or images are to be varied and are none.
        NetworkError: If nothing in the network can be trained.
        ArtefactError: If the checkpoint in the directory is damaged.
        KeyboardInterrupt: If the user interrupts; the checkpoint of the last whole epoch stays.
    """
    _check(network, train_set, held_out, settings, seed)
    # Lightning takes seconds to import: only those who train wait for it.
    from structured_ensembles import _lightning

    settings = limited(settings, sized(train_set))
    job = _lightning.Job(copy.deepcopy(network).train(), train_set, held_out, settings, seed, label, directory, loss)
    state = _lightning.run(job)
    job.network.load_state_dict(state.best_weights)
    job.network.zero_grad()
    best = state.history[best_row(state.history)]
    return Trained(
        network=job.network.to(_device(network)).eval(),
        best_epoch=int(best["epoch"]),
        epochs_run=len(state.history),
        held_out_accuracy=best["held_out_accuracy"],
        held_out_loss=best["held_out_loss"],
        history=tuple(state.history),
    )


def limited(settings: TrainingSettings, examples: int) -> TrainingSettings:
    """The settings with as many epochs as ``max_steps`` allows for so many examples, at least one."""
    if settings.max_steps is None:
        return settings
    batches = math.ceil(examples / settings.batch_size)
    return replace(settings, epochs=max(1, min(settings.epochs, settings.max_steps // batches)))


def best_row(history: list[dict[str, float]]) -> int:
    """The index of the best epoch: highest held-out accuracy, then lowest held-out loss, then the earliest."""
    return max(range(len(history)), key=lambda i: (history[i]["held_out_accuracy"], -history[i]["held_out_loss"]))


def finished(history: list[dict[str, float]], settings: TrainingSettings) -> bool:
    """Whether all epochs are done, or patience has run out: too many since the accuracy last rose."""
    if len(history) >= settings.epochs:
        return True
    if settings.patience is None or not history:
        return False
    accuracies = [row["held_out_accuracy"] for row in history]
    return len(history) - 1 - accuracies.index(max(accuracies)) >= settings.patience


def _check(
    network: nn.Module, train_set: Dataset[Any], held_out: Dataset[Any], settings: TrainingSettings, seed: int
) -> None:
    derived_seed(seed)
    sized(train_set, "training set")
    sized(held_out, "held-out set")
    inputs, _ = check_pair(train_set)
    if settings.augmentation != Augmentation.NONE:
        check_images(torch.as_tensor(inputs).shape, settings.augmentation)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise NetworkError("the network has no parameter that requires a gradient: nothing in it can be trained.")
    if settings.log == Log.TENSORBOARD and importlib.util.find_spec("tensorboard") is None:
        raise SettingsError("log tensorboard needs a package: pip install 'structured-ensembles[tensorboard]'.")


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
