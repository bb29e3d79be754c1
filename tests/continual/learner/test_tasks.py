from __future__ import annotations

import math
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

from structured_ensembles.continual.learner.tasks import (
    Task,
    check_number,
    check_stream,
    check_task,
    from_sources,
    permuted,
    rotate,
    rotated,
    split_classes,
)
from structured_ensembles.data.sources import ImageData, Split
from structured_ensembles.errors import DataError, SettingsError


def split(labels: Tensor, shape: tuple[int, int, int] = (1, 4, 6), seed: int = 0, *, floats: bool = False) -> Split:
    """Images whose first pixel is their label, so that it can be found again."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(labels), *shape), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 0] = labels.to(torch.uint8)
    return Split(images.float() / 255 if floats else images, labels)


def source(classes: int = 6, each: int = 10, seed: int = 0, **shape: object) -> ImageData:
    train, test = torch.arange(classes * each) % classes, torch.arange(classes * 3) % classes
    names = tuple("abcdefghijklmnop"[:classes])
    return ImageData(f"set {seed}", split(train, seed=seed, **shape), split(test, seed=seed + 100, **shape), names)


def rows(*splits: Split) -> set[bytes]:
    return {image.numpy().tobytes() for part in splits for image in part.images}


@given(classes=st.integers(4, 12), tasks=st.integers(2, 6), seed=st.integers(0, 99))
def test_every_image_is_in_the_one_task_of_its_class_under_its_new_label(classes: int, tasks: int, seed: int):
    images = source(classes)
    if classes < 2 * tasks:
        with pytest.raises(SettingsError, match=f"{classes} classes do not make {tasks} tasks"):
            split_classes(images, tasks)
        return
    stream = split_classes(images, tasks, held_out=0.2, seed=seed)
    assert sum((task.classes for task in stream), ()) == images.classes
    sizes = [len(task.classes) for task in stream]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1
    first = 0
    for task in stream:
        for part in task.parts.values():
            assert torch.equal(part.images[:, 0, 0, 0].long() - first, part.labels)
        first += len(task.classes)
    learned = [part for task in stream for part in (task.train, task.held_out)]
    assert sum(map(len, learned)) == len(images.train)
    assert rows(*learned) == rows(images.train)
    assert sum(len(task.test) for task in stream) == len(images.test)


def test_a_share_of_each_class_is_held_out_by_the_seed():
    images = source(4)
    one, again, other = (split_classes(images, 2, held_out=0.3, seed=seed) for seed in (0, 0, 1))
    for task in one:
        assert torch.bincount(task.held_out.labels).tolist() == [3, 3]
        assert not rows(task.train) & rows(task.held_out)
    assert torch.equal(one[1].train.images, again[1].train.images)
    assert rows(one[1].held_out) != rows(other[1].held_out)


def test_streams_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    permuted(source(4), 3)
    split_classes(source(4), 2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_tasks_are_named_by_their_classes():
    assert [task.name for task in split_classes(source(8), 2)] == ["a ... d", "e ... h"]
    assert [task.name for task in split_classes(source(4), 2)] == ["a, b", "c, d"]


def test_a_permutation_is_one_for_all_images_and_channels_of_a_task_and_its_own():
    images = source(4, shape=(2, 4, 6))
    tasks = permuted(images, 3, seed=5)
    assert rows(tasks[0].train, tasks[0].held_out) == rows(images.train)
    plain = tasks[0].test.images.flatten(2)
    orders = []
    for task in tasks[1:]:
        shuffled = task.test.images.flatten(2)
        # The column of a pixel over all images and channels is found again in one place.
        order = [int((plain == shuffled[:, :, [i]]).all(0).all(0).nonzero()[0, 0]) for i in range(24)]
        assert sorted(order) == list(range(24))
        assert torch.equal(task.train.images.flatten(2), tasks[0].train.images.flatten(2)[:, :, order])
        orders.append(order)
    assert orders[0] != orders[1]
    assert [task.name for task in tasks] == ["as they are", "permutation 1", "permutation 2"]


@pytest.mark.parametrize("shape", [(1, 5, 5), (2, 4, 6), (1, 7, 4)])
@pytest.mark.parametrize("floats", [True, False])
def test_half_a_turn_is_a_flip_of_both_sides(shape: tuple[int, int, int], floats: bool):
    images = split(torch.zeros(3, dtype=torch.int64), shape, floats=floats).images
    turned = rotate(images, 180)
    assert turned.dtype == images.dtype
    torch.testing.assert_close(turned, images.flip(2, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("floats", [True, False])
def test_a_quarter_turn_is_counter_clockwise(floats: bool):
    images = split(torch.zeros(3, dtype=torch.int64), (2, 5, 5), floats=floats).images
    torch.testing.assert_close(rotate(images, 90), torch.rot90(images, 1, (2, 3)), atol=1e-5, rtol=0)


def test_a_long_image_is_turned_and_not_sheared():
    images = torch.zeros(1, 1, 5, 9)
    images[0, 0, 2, 4:7] = 1  # from the middle to the right
    turned = rotate(images, 90)
    expected = torch.zeros(1, 1, 5, 9)
    expected[0, 0, 0:3, 4] = 1  # from the middle up
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


@given(st.floats(0, 359), st.integers(0, 10))
def test_turned_pixels_stay_in_range(degrees: float, seed: int):
    turned = rotate(torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(seed)), degrees)
    assert turned.shape == (2, 1, 6, 5)
    assert 0 <= float(turned.min()) <= float(turned.max()) <= 1


def test_rotations_go_from_nothing_to_the_last_angle_in_even_steps():
    images = source(4)
    tasks = rotated(images, 4, degrees=90)
    assert [task.name for task in tasks] == ["0 degrees", "30 degrees", "60 degrees", "90 degrees"]
    assert rows(tasks[0].train, tasks[0].held_out) == rows(images.train)
    assert torch.equal(tasks[2].test.images, rotate(images.test.images, 60))
    assert torch.equal(tasks[2].test.labels, images.test.labels)
    assert torch.equal(tasks[2].held_out.labels, tasks[0].held_out.labels)


def test_sources_become_tasks_with_all_their_classes():
    first, second = source(3, seed=0), source(5, seed=1)
    tasks = from_sources([first, second], held_out=0.5)
    assert [(task.name, task.classes) for task in tasks] == [("set 0", first.classes), ("set 1", second.classes)]
    assert rows(tasks[1].train, tasks[1].held_out) == rows(second.train)
    assert tasks[1].test is second.test


@pytest.mark.parametrize("tasks", [-1, 0, 1])
@pytest.mark.parametrize("make", [split_classes, permuted, rotated])
def test_a_stream_needs_two_tasks(make: object, tasks: int):
    with pytest.raises(SettingsError, match=f"tasks {tasks} must be at least 2"):
        make(source(), tasks)


@pytest.mark.parametrize(
    ("classes", "tasks", "message"),
    [
        (6, 7, "6 classes do not make 7 tasks: a task needs 2 classes at least; ask for 3 tasks or fewer"),
        (5, 3, "5 classes do not make 3 tasks: a task needs 2 classes at least; ask for 2 tasks or fewer"),
        (3, 2, "take data with at least 4 classes"),
    ],
)
def test_classes_that_do_not_suffice_are_refused(classes: int, tasks: int, message: str):
    with pytest.raises(SettingsError, match=message):
        split_classes(source(classes), tasks)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_held_out_share_outside_its_limits_is_refused(share: float):
    with pytest.raises(SettingsError, match=r"held_out .* is outside \(0, 1\)"):
        split_classes(source(), 2, held_out=share)


@pytest.mark.parametrize("degrees", [0, 360, math.nan])
def test_angles_that_repeat_the_first_task_are_refused(degrees: float):
    with pytest.raises(SettingsError, match=r"degrees .* is outside \(0, 360\)"):
        rotated(source(), 3, degrees=degrees)


def test_a_task_without_test_images_is_refused():
    images = source(4)
    seen = images.test.labels < 2
    test = Split(images.test.images[seen], images.test.labels[seen])
    with pytest.raises(DataError, match=r"the test set of task 'c, d' has no images \(shape \(0, 1, 4, 6\)\)"):
        split_classes(replace(images, test=test), 2)


def test_unsound_data_are_refused():
    images = source(4)
    for make in (split_classes, permuted, rotated):
        with pytest.raises(DataError, match="holds the label 4 at index 0"):
            make(replace(images, test=Split(images.test.images, images.test.labels + 4)), 2)
    with pytest.raises(DataError, match="class 3 has one image only"):
        split_classes(replace(images, train=split(torch.tensor([0, 0, 1, 1, 2, 2, 3]))), 2)


def test_sources_of_different_shapes_are_refused():
    with pytest.raises(DataError, match=r"'set 1' has images of shape \(3, 4, 6\).*began with \(1, 4, 6\): load all"):
        from_sources([source(seed=0), source(seed=1, shape=(3, 4, 6))])


def test_the_same_source_twice_is_refused():
    images = source()
    with pytest.raises(DataError, match="task 'set 0' has the training images of task 'set 0': give each task its own"):
        from_sources([images, images])
    with pytest.raises(SettingsError, match="a stream of 0 tasks"):
        check_stream([])


def test_permutations_of_a_constant_image_are_the_same_task_and_refused():
    images = source(4)
    flat = Split(torch.zeros_like(images.train.images), images.train.labels)
    with pytest.raises(DataError, match="task 'permutation 1' has the training images of task 'as they are'"):
        permuted(replace(images, train=flat), 2)


def _task(**changes: object) -> Task:
    part = split(torch.tensor([0, 1, 0, 1]), floats=True)
    return replace(Task("x", part, part, part, ("a", "b")), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a",)}, "task 'x' has 1 class: at least 2"),
        ({"train": split(torch.tensor([0, 2]))}, "training set of task 'x' holds the label 2 at index 1"),
        ({"test": split(torch.tensor([0, -1]))}, "test set of task 'x' holds the label -1 at index 1"),
        ({"held_out": split(torch.tensor([], dtype=torch.int64))}, "held-out set of task 'x' has no images"),
        ({"held_out": split(torch.tensor([0, 1]), (1, 8, 8))}, r"held-out set of task 'x' has images of shape"),
        ({"train": Split(torch.zeros(3, 1, 4, 6), torch.tensor([0, 1]))}, "holds 3 images, but it has 2 labels"),
        ({"test": Split(torch.full((2, 1, 4, 6), math.nan), torch.tensor([0, 1]))}, "48 NaN or infinite values"),
    ],
)
def test_a_task_that_cannot_be_learned_is_refused(changes: dict[str, object], message: str):
    check_task(_task())
    with pytest.raises(DataError, match=message):
        check_task(_task(**changes))


def test_classes_of_one_name_are_refused():
    task = split_classes(source(4), 2)[0]
    with pytest.raises(DataError, match=r"the same \('a'\): give each a name of its own"):
        check_task(replace(task, classes=("a", "a")))


@pytest.mark.parametrize("number", [0, np.int64(0), torch.tensor(0)])
def test_a_task_may_be_named_by_any_whole_number(number):
    assert check_number(number, 1) == 0
