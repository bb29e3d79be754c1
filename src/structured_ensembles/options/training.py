"""How a network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from structured_ensembles.options.choices import Augmentation, Log, Optimiser, Schedule
from structured_ensembles.options.described import check, option


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained; each field says what it does.

    Raises:
        SettingsError: Naming every value outside its limits.
    """

    epochs: int = option(30, "How often every image is seen, at most.", limit="[1, inf)")
    max_steps: int | None = option(
        None,
        "Batches, at most: large sets get fewer epochs, at least one. No limit if --epochs is given and this is not.",
        limit="[1, inf)",
        key="steps",
    )
    batch_size: int = option(64, "Images per step.", limit="[1, inf)")
    optimiser: Optimiser = option(Optimiser.SGD, "What takes the steps.")
    learning_rate: float = option(
        0.05,
        "The highest of the schedule. ResNets: 0.1 in both presets; published VGGs: 0.01.",
        limit="(0, inf)",
        rule="must be above 0, 0.05 for example",
    )
    momentum: float = option(0.9, "Of sgd.", limit="[0, 1)", rule="must be in [0, 1), 0.9 for example")
    nesterov: bool = option(True, "Look ahead with sgd; needs momentum.")
    weight_decay: float = option(5e-4, "Pulls weights towards zero.", limit="[0, inf)")
    schedule: Schedule = option(Schedule.ONE_CYCLE, "How the learning rate changes.")
    milestones: tuple[int, ...] = option((50, 100, 150), "Epochs, in rising order, at which multistep lowers the rate.")
    gamma: float = option(0.8, "What multistep multiplies the rate by.", limit="(0, 1]", rule="must be in (0, 1]")
    patience: int | None = option(
        None, "Stop after so many epochs without progress. Published VGGs: 10.", limit="[1, inf)"
    )
    augmentation: Augmentation = option(
        Augmentation.NONE, "Vary the training images; never flip digits or letters.", key="augment"
    )
    num_workers: int = option(
        0, "Processes that read the images; 0 reads them in this one, which suits images in memory.", limit="[0, inf)"
    )
    log: Log = option(Log.CSV, "How learning curves are logged.")

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0, *self.milestones), self.milestones, strict=False))
        sgd = "nesterov needs momentum above 0: set nesterov to false"
        epochs = f"milestones {tuple(self.milestones)} must be epochs from 1 on in rising order"
        check(self, [(self.nesterov and self.momentum == 0, sgd), (not rising, epochs)])
