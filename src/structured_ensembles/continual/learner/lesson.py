"""What one task teaches, read and checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from structured_ensembles.continual.learner.state import TaskRecord
from structured_ensembles.continual.learner.tasks import check_names
from structured_ensembles.data.batches import Source
from structured_ensembles.data.examples import Examples
from structured_ensembles.data.labels import spread
from structured_ensembles.errors import DataError, first_line
from structured_ensembles.files.marks import check_mark
from structured_ensembles.prediction.uncertainty import require_finite
from structured_ensembles.seeding import seeded

Classes = Sequence[str] | int | None
"""The names of a task's classes, or how many there are; None counts the labels."""

EXAMPLES = 4
"""So many inputs of each task are kept, to see later that its answers are the same."""


@dataclass(frozen=True)
class Lesson:
    """What one task teaches.

    Attributes:
        name: As messages call it.
        examples: All of it.
        inputs: (n, ...), a few of the inputs.
    """

    name: str
    examples: Examples
    inputs: Tensor


def read(train: Source, name: str | None, classes: Classes, known: Sequence[TaskRecord]) -> Lesson:
    """Read and check what a task teaches.

    Args:
        train: Where its examples come from.
        name: What to call it; None numbers it.
        classes: Its classes.
        known: The tasks that have been learned.

    Raises:
        DataError: It is empty, has labels outside 0 ... K - 1 or of one class only, inputs of another shape than the
            tasks before, or is one of them.
    """
    # Transforms may draw at random: the same data are to give the same inputs each time.
    with seeded(0):
        lesson = _read(train, name or f"task {len(known)}", classes, known)
    fingerprint = lesson.examples.fingerprint  # now: a training loop of the user's own may change the data
    for task, record in enumerate(known):
        if record.fingerprint == fingerprint:
            raise DataError(
                f"{lesson.name!r} has been learned already, as task {task} ({record.name}): give other examples"
            )
    return lesson


def _read(train: Source, name: str, classes: Classes, known: Sequence[TaskRecord]) -> Lesson:
    examples = Examples.of(train, classes)
    check_names(repr(name), examples.classes)
    _check_labels(examples.labels, len(examples.classes), name)
    if len(torch.unique(examples.labels)) < 2:
        raise DataError(f"{name!r} has examples of one class only: there is nothing to tell apart")
    inputs = _inputs(examples)
    if known:
        _check_shape(inputs, known[0].inputs, name, "the tasks before it")
    return Lesson(name, examples, inputs)


def claimed(folder: Path | None, taught: Lesson, held_out: Examples | None) -> str:
    """What marks the folder of a training as that of these examples; empty without a folder, where nothing is kept.

    Args:
        folder: Of the training.
        taught: What is learned.
        held_out: What chooses the best epoch, if it is not a part of that.

    Raises:
        SettingsError: The folder holds a training of others.
    """
    if folder is None:
        return ""
    found = f"{taught.examples.fingerprint} {'' if held_out is None else held_out.fingerprint}".strip()
    remedy = "delete it to train from the start, or give another directory"
    check_mark(folder, found, f"{folder} holds another training, of other examples: {remedy}")
    return found


def checked_inputs(inputs: Tensor, example: Tensor) -> Tensor:
    """Inputs to answer for, on the CPU, floating numbers in the type that tasks were learned in.

    Args:
        inputs: (B, ...).
        example: Of a task.

    Raises:
        DataError: There are none, or they have another shape or kind.
    """
    shape = tuple(example.shape[1:])
    if len(inputs) == 0 or tuple(inputs.shape[1:]) != shape:
        raise DataError(f"inputs of shape {tuple(inputs.shape)}: pass at least one of shape {shape}")
    if inputs.is_floating_point() != example.is_floating_point():
        raise DataError(f"inputs of type {inputs.dtype}: pass {example.dtype}, as the tasks were learned in")
    require_finite(inputs)
    return inputs.to("cpu", example.dtype)


def held_out_of(taught: Lesson, held_out: Source) -> Examples:
    """Other examples of the same task.

    Raises:
        DataError: They are unsound, or unlike the task's.
    """
    name = f"held-out set of {taught.name}"
    with seeded(0):
        try:
            examples = Examples.of(held_out, taught.examples.classes)
        except DataError as error:
            raise DataError(f"{name!r}: {error}") from error
        _check_labels(examples.labels, len(examples.classes), name)
        _check_shape(_inputs(examples), taught.inputs, name, "the training examples")
    return examples


def _check_labels(labels: Tensor, classes: int, name: str) -> None:
    """Refuse labels that are no class of the task.

    Raises:
        DataError: Naming the label and the range.
    """
    if int(labels.max()) >= classes:
        raise DataError(
            f"label {int(labels.max())} of {name!r} is outside 0 ... {classes - 1}: number the classes of each task "
            "from 0 on"
        )


def _inputs(examples: Examples) -> Tensor:
    """A few inputs, spread over the examples, on the CPU."""
    try:
        return torch.stack(
            [torch.as_tensor(examples.dataset[index][0]).cpu() for index in spread(len(examples), EXAMPLES)]
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"an input must be one tensor, of the same shape in every example ({first_line(error)}): resize the images"
        ) from error


def _check_shape(inputs: Tensor, known: Tensor, name: str, of: str) -> None:
    if inputs.shape[1:] != known.shape[1:]:
        raise DataError(
            f"{name!r} has inputs of shape {tuple(inputs.shape[1:])}, and {of} of {tuple(known.shape[1:])}: resize "
            "them, or start another stream"
        )
