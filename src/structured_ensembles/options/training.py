"""How a network is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from structured_ensembles.errors import SettingsError, unknown
from structured_ensembles.options.choices import Augmentation, Choice, Log, Optimiser, Schedule, check_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        check_numbers(self)
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
