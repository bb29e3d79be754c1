"""Streams of tasks, made of labelled images: what the learner is shown, one task after the other.

Whatever the stream, the images are divided into training and held-out ones first, class by class and by the seed, and
no task ever trains on what another one holds out.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import TensorDataset

from structured_ensembles.data.examples import Examples
from structured_ensembles.data.labels import check_finite
from structured_ensembles.data.sources.checks import check_data, check_known, check_length
from structured_ensembles.data.sources.records import ImageData, Split, as_float, divide
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.seeding import derived_seed

_CHUNK = 1024
_MOST_NAMED = 3


class Stage(IntEnum):
    """What of a stream has seeds of its own: ``derived_seed(seed, PART, task)``.

    Every strategy has the first three; each numbers what it alone has from 3 on, as the structured learner does here.
    """

    BACKBONE, HEAD, TRAIN, SPLIT, SEARCH, RANK, GROW = range(7)


@dataclass(frozen=True, eq=False)
class Task:
    """Images to tell apart, with labels of their own.

    Attributes:
        name: As tables call it.
        train: What is learned from.
        held_out: What chooses the best epoch; it is never varied.
        test: What is measured on.
        classes: The K_t names of the labels 0 ... K_t - 1.
    """

    name: str
    train: Split
    held_out: Split
    test: Split
    classes: tuple[str, ...]

    @property
    def parts(self) -> dict[str, Split]:
        """The three splits by what messages call them."""
        return {"training set": self.train, "held-out set": self.held_out, "test set": self.test}

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def fingerprint(self) -> str:
        """What tells its training images and labels from those of other tasks."""
        return Examples.of(TensorDataset(self.train.images, self.train.labels)).fingerprint


def split_classes(images: ImageData, tasks: int, *, held_out: float = 0.1, seed: int = 0) -> list[Task]:
    """Split the classes, in their natural order, into tasks of nearly as many classes each.

    Where the classes do not divide evenly, the first tasks have one more. Labels start at 0 in each task.

    Args:
        images: What is split.
        tasks: T, at least 2.
        held_out: The share of each class's training images that chooses the best epoch, in (0, 1).
        seed: Which images those are.

    Raises:
        SettingsError: A number is outside its limits, or a task would have one class only.
        DataError: The data are unsound, a class has one training image only, or a task has no test image.
    """
    _check_settings(tasks, held_out)
    _check_enough_classes(len(images.classes), tasks)
    parts = _divided(images, held_out, seed)
    stream = [
        _task(_name(names), parts, names, partial(_of_classes, labels=labels))
        for labels in torch.tensor_split(torch.arange(len(images.classes)), tasks)
        for names in [tuple(images.classes[label] for label in labels)]
    ]
    check_stream(stream)
    return stream


def permuted(images: ImageData, tasks: int, *, held_out: float = 0.1, seed: int = 0) -> list[Task]:
    """All classes in every task, the pixels in another order: task 0 as they are, each later one shuffled its own way.

    The order is the same for all images of a task and for all of their channels (Goodfellow et al. 2013,
    arXiv 1312.6211).

    Args:
        images: What is permuted.
        tasks: T, at least 2.
        held_out: The share of each class's training images that chooses the best epoch, in (0, 1).
        seed: Of the orders, and of which images are held out.

    Raises:
        SettingsError: A number is outside its limits.
        DataError: The data are unsound, or a class has one training image only.
    """
    _check_settings(tasks, held_out)
    parts = _divided(images, held_out, seed)
    stream = [_task("as they are", parts, images.classes, lambda part: part)]
    for number in range(1, tasks):
        generator = torch.Generator().manual_seed(derived_seed(seed, number))
        order = torch.randperm(images.train.images[0, 0].numel(), generator=generator)
        stream.append(_task(f"permutation {number}", parts, images.classes, partial(_shuffled, order=order)))
    check_stream(stream)
    return stream


def rotated(images: ImageData, tasks: int, *, degrees: float = 180, held_out: float = 0.1, seed: int = 0) -> list[Task]:
    """All classes in every task, the images turned further and further: from 0 to ``degrees`` in even steps.

    Args:
        images: What is turned, counter-clockwise; corners that come into view are black.
        tasks: T, at least 2.
        degrees: The angle of the last task, in (0, 360).
        held_out: The share of each class's training images that chooses the best epoch, in (0, 1).
        seed: Which images those are.

    Raises:
        SettingsError: A number is outside its limits.
        DataError: The data are unsound, or a class has one training image only.
    """
    _check_settings(tasks, held_out)
    if not 0 < degrees < 360:
        raise SettingsError(f"degrees {degrees} is outside (0, 360): 180 turns the last task upside down")
    parts = _divided(images, held_out, seed)
    stream = [
        _task(f"{angle:.6g} degrees", parts, images.classes, partial(_rotated, degrees=angle))
        for angle in torch.linspace(0, degrees, tasks, dtype=torch.float64).tolist()
    ]
    check_stream(stream)
    return stream


def from_sources(sources: Sequence[ImageData], *, held_out: float = 0.1, seed: int = 0) -> list[Task]:
    """One task for each source of data, all with images of one shape.

    Args:
        sources: At least 2.
        held_out: The share of each class's training images that chooses the best epoch, in (0, 1).
        seed: Which images those are.

    Raises:
        SettingsError: A number is outside its limits.
        DataError: The data are unsound, differ in shape, or come twice; or a class has one training image only.
    """
    _check_settings(len(sources), held_out)
    stream = [Task(images.name, *_divided(images, held_out, seed), classes=images.classes) for images in sources]
    check_stream(stream)
    return stream


def check_task(task: Task) -> None:
    """Refuse a task that nothing can be learned from, before it is begun.

    Raises:
        DataError: A split is empty or of another shape than the training images, a label is no class of the task,
            there is one class only, or pixels are NaN or infinite.
    """
    if len(task.classes) < 2:
        raise DataError(f"task {task.name!r} has {len(task.classes)} class: at least 2 are needed to tell apart")
    check_names(f"task {task.name!r}", task.classes)
    for name, part in task.parts.items():
        called = f"the {name} of task {task.name!r}"
        if part.images.ndim != 4 or part.images.numel() == 0:
            raise DataError(
                f"{called} has no images (shape {tuple(part.images.shape)}): give it some, or drop the task"
            )
        check_length(called, "it has", (len(part.images), len(part.labels)))
        check_known(called, part.labels, len(task.classes))
        check_shape(called, part.images, task.input_shape)
        if part.images.is_floating_point():
            check_finite(TensorDataset(part.images, part.labels))


def check_shape(called: str, images: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse images of another shape than those that the stream began with.

    Raises:
        DataError: Naming both shapes.
    """
    if tuple(images.shape[1:]) != shape:
        raise DataError(
            f"{called} has images of shape {tuple(images.shape[1:])} (channels, height, width), but the stream began "
            f"with {shape}: load all of them with one image_size, and make them all grey or all in colour"
        )


def check_number(task: object, learned: int) -> int:
    """The number of a task that has been learned.

    Args:
        task: What the user says; anything may come.
        learned: How many tasks have been.

    Raises:
        SettingsError: It is no whole number, or no such task has been learned.
    """
    known = f"tasks 0 to {learned - 1} have been" if learned else "no task has been"
    try:
        number = -1 if isinstance(task, bool) else operator.index(task)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number < learned:
        raise SettingsError(f"task {task} is unknown: {known} learned; name one by its number")
    return number


def check_names(called: str, classes: Sequence[str]) -> None:
    """Refuse classes that could not be told apart by their names.

    Raises:
        DataError: Naming those that come twice.
    """
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        raise DataError(
            f"{called} has classes that are called the same ({', '.join(map(repr, twice[:_MOST_NAMED]))}): give each a "
            "name of its own"
        )


def check_stream(tasks: Sequence[Task]) -> None:
    """Refuse a stream in which some task is unsound, of another shape, or there already.

    Raises:
        DataError: Naming the task.
        SettingsError: There is no task.
    """
    if not tasks:
        raise SettingsError("a stream of 0 tasks: give it at least one")
    names: dict[str, str] = {}
    for task in tasks:
        check_task(task)
        check_shape(f"task {task.name!r}", task.train.images, tasks[0].input_shape)
        if (fingerprint := task.fingerprint) in names:
            raise DataError(
                f"task {task.name!r} has the training images of task {names[fingerprint]!r}: give each task its own"
            )
        names[fingerprint] = task.name


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turn images counter-clockwise around their middle, by bilinear interpolation; the type stays.

    Args:
        images: (N, C, H, W), uint8, or floats in [0, 1].
        degrees: By how much; 0 gives back ``images`` itself.
    """
    if degrees == 0:
        return images
    turned = [_turned(as_float(part), degrees) for part in torch.split(images, _CHUNK)]
    return torch.cat(
        [(part * 255).round().to(images.dtype) if images.dtype == torch.uint8 else part for part in turned]
    )


def _turned(pixels: Tensor, degrees: float) -> Tensor:
    height, width = pixels.shape[2:]
    cos, sin = (float(f(torch.deg2rad(torch.tensor(degrees, dtype=torch.float64)))) for f in (torch.cos, torch.sin))
    # Coordinates run from -1 to 1 on either side: the ratio of the sides keeps a long image from being sheared.
    theta = torch.tensor([[cos, -sin * height / width, 0], [sin * width / height, cos, 0]])
    grid = affine_grid(theta.expand(len(pixels), 2, 3), list(pixels.shape), align_corners=False)
    return grid_sample(pixels, grid, align_corners=False).clamp(0, 1)


def _shuffled(split: Split, order: Tensor) -> Split:
    images = split.images
    return Split(images.flatten(2)[:, :, order].view(images.shape), split.labels)


def _rotated(split: Split, degrees: float) -> Split:
    return Split(rotate(split.images, degrees), split.labels)


def _task(name: str, parts: Sequence[Split], classes: tuple[str, ...], change: Callable[[Split], Split]) -> Task:
    """The task whose three splits are changed in one way."""
    train, held_out, test = map(change, parts)
    return Task(name, train, held_out, test, classes)


def _divided(images: ImageData, held_out: float, seed: int) -> tuple[Split, Split, Split]:
    """Training, held-out and test images, once they are found to be sound."""
    check_data(images)
    train, kept_back = divide(images.train, held_out, derived_seed(seed))
    return train, kept_back, images.test


def _of_classes(split: Split, labels: Tensor) -> Split:
    """The images of consecutive classes, numbered from 0."""
    chosen = split.part(torch.isin(split.labels, labels))
    return Split(chosen.images, chosen.labels - labels[0])


def _name(classes: tuple[str, ...]) -> str:
    return ", ".join(classes) if len(classes) <= _MOST_NAMED else f"{classes[0]} ... {classes[-1]}"


def _check_settings(tasks: int, held_out: float) -> None:
    if tasks < 2:
        raise SettingsError(f"tasks {tasks} must be at least 2: a stream has several tasks")
    if not 0 < held_out < 1:
        raise SettingsError(f"held_out {held_out} is outside (0, 1): 0.1 holds out a tenth of each class")


def _check_enough_classes(classes: int, tasks: int) -> None:
    if classes < 2 * tasks:
        remedy = f"ask for {classes // 2} tasks or fewer" if classes >= 4 else "take data with at least 4 classes"
        raise SettingsError(f"{classes} classes do not make {tasks} tasks: a task needs 2 classes at least; {remedy}")
