"""What one task teaches, read and checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from structured_ensembles.continual.learner.tasks import check_names
from structured_ensembles.data.batches import as_dataset, check_finite, repeats, split_held_out
from structured_ensembles.data.digests import fingerprint
from structured_ensembles.data.labels import check_pair, labels_of, sized
from structured_ensembles.errors import DataError, first_line
from structured_ensembles.files.marks import check_mark
from structured_ensembles.prediction.uncertainty import require_finite
from structured_ensembles.seeding import seeded

if TYPE_CHECKING:
    from pathlib import Path

    from structured_ensembles.continual.learner.state import TaskRecord
    from structured_ensembles.data.batches import Source

Classes = Sequence[str] | int | None
"""The names of a task's classes, or how many there are; None counts the labels."""

EXAMPLES = 4
"""So many inputs of each task are kept, to see later that its answers are the same."""


@dataclass(frozen=True)
class Lesson:
    """What one task teaches.

    Attributes:
        name: As messages call it.
        classes: The K names.
        train: Examples (x, y) to learn from.
        inputs: (n, ...), a few of the inputs.
        fingerprint: Tells these examples from others.
    """

    name: str
    classes: tuple[str, ...]
    train: Any
    inputs: Tensor
    fingerprint: str


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
    # Transforms may draw at random: the same data are to have the same fingerprint each time.
    with seeded(0):
        lesson = _read(train, name or f"task {len(known)}", classes, known)
    for task, record in enumerate(known):
        if record.fingerprint == lesson.fingerprint:
            raise DataError(
                f"{lesson.name!r} has been learned already, as task {task} ({record.name}): give other examples"
            )
    return lesson


def _read(train: Source, name: str, classes: Classes, known: Sequence[TaskRecord]) -> Lesson:
    dataset: Any = as_dataset(train)
    check_finite(dataset)
    labels = labels_of(dataset)
    names = _names(classes, labels)
    check_names(repr(name), names)
    check_labels(labels, len(names), name)
    if len(torch.unique(labels)) < 2:
        raise DataError(f"{name!r} has examples of one class only: there is nothing to tell apart")
    inputs = _inputs(dataset)
    if known:
        _check_shape(inputs, known[0].inputs, name, "the tasks before it")
    return Lesson(name, names, dataset, inputs, fingerprint([dataset]))


def claimed(folder: Path | None, taught: Lesson, held_out: Source | None) -> str:
    """What marks the folder of a training as that of these examples; empty without a folder, where nothing is kept.

    Raises:
        SettingsError: It holds a training of others.
    """
    if folder is None:
        return ""
    with seeded(0):
        own = "" if held_out is None else fingerprint([as_dataset(held_out)])
    found = f"{taught.fingerprint} {own}".strip()
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


def divided(lesson: Lesson, train: Source, held_out: Source | None, share: float, seed: int) -> tuple[Any, Any]:
    """What is trained on, and what chooses the best epoch: given, or held out class by class.

    Args:
        lesson: Of ``train``.
        train: Where it came from.
        held_out: Examples of the same task; None holds a share out.
        share: How much.
        seed: Which examples those are.

    Raises:
        DataError: The held-out examples are unsound or unlike the task's, or examples could be in both parts.
    """
    if held_out is not None:
        with seeded(0):
            return lesson.train, _read_held_out(held_out, lesson)
    if repeats(train):
        raise DataError(
            "the loader draws examples with replacement: some would be trained on and held out at once. Give "
            "held_out=..., or a loader without such a sampler"
        )
    with seeded(0):
        return split_held_out(lesson.train, share, seed)


def _read_held_out(held_out: Source, lesson: Lesson) -> Any:  # noqa: ANN401 (any dataset of examples)
    name, dataset = f"held-out set of {lesson.name}", as_dataset(held_out)
    try:
        check_finite(dataset)
    except DataError as error:
        raise DataError(f"{name!r}: {error}") from error
    check_labels(labels_of(dataset), len(lesson.classes), name)
    _check_shape(_inputs(dataset), lesson.inputs, name, "the training examples")
    return dataset


def check_labels(labels: Tensor, classes: int, name: str) -> None:
    """Refuse labels that are no class of the task.

    Raises:
        DataError: Naming the label and the range.
    """
    if int(labels.max()) >= classes:
        raise DataError(
            f"label {int(labels.max())} of {name!r} is outside 0 ... {classes - 1}: number the classes of each task "
            "from 0 on"
        )


def _names(classes: Classes, labels: Tensor) -> tuple[str, ...]:
    if classes is None:
        return tuple(str(k) for k in range(int(labels.max()) + 1))
    return tuple(str(k) for k in range(classes)) if isinstance(classes, int) else tuple(map(str, classes))


def _inputs(dataset: Any) -> Tensor:  # noqa: ANN401 (any dataset of examples)
    """A few inputs, spread over the dataset, on the CPU."""
    count = sized(dataset)
    spread = range(0, count, -(-count // EXAMPLES))
    try:
        inputs = torch.stack([torch.as_tensor(check_pair(dataset, index)[0]).cpu() for index in spread])
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"an input must be one tensor, of the same shape in every example ({first_line(error)}): resize the images"
        ) from error
    return inputs


def _check_shape(inputs: Tensor, known: Tensor, name: str, of: str) -> None:
    if inputs.shape[1:] != known.shape[1:]:
        raise DataError(
            f"{name!r} has inputs of shape {tuple(inputs.shape[1:])}, and {of} of {tuple(known.shape[1:])}: resize "
            "them, or start another stream"
        )
