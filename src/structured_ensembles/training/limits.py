"""How a network is trained, and when a training is at its end."""

from __future__ import annotations

import math
from dataclasses import replace

from structured_ensembles.options.training import TrainingSettings


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
