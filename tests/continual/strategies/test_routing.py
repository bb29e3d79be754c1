"""Several tasks in one batch: each example through its own head, as if the tasks came one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from structured_ensembles.continual.strategies._routing import Routed, joined, tagged
from structured_ensembles.data.augmentation import augment
from structured_ensembles.data.sources import Split, as_float
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import Augmentation

WIDTHS = (2, 4, 3)


def split(count: int, seed: int, *, floats: bool = False) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 2, 8, 6), generator=generator, dtype=torch.uint8)
    return Split(as_float(images) if floats else images, torch.arange(count) % 2)


def routed() -> Routed:
    generator = torch.Generator().manual_seed(0)
    network = Routed(
        nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten()), [nn.Linear(120, width) for width in WIDTHS]
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return network


def mixed() -> tuple[Split, list[Split]]:
    """Examples of three tasks in a random order, one of them in floats, and the tasks themselves."""
    parts = [split(5, 0), split(7, 1, floats=True), split(6, 2)]
    whole = joined([tagged(part, number) for number, part in enumerate(parts)])
    order = torch.randperm(18, generator=torch.Generator().manual_seed(3))
    return Split(whole.images[order], whole.labels[order]), parts


def test_each_example_is_answered_by_the_head_of_its_task():
    network, (whole, parts) = routed(), mixed()
    with torch.no_grad():
        logits = network(as_float(whole.images))
        answers = {
            image.numpy().tobytes(): answer
            for number, part in enumerate(parts)
            for image, answer in zip(
                as_float(part.images), network.heads[number](network.backbone(as_float(part.images))), strict=True
            )
        }
    assert logits.shape == (18, 4)
    for image, found in zip(as_float(whole.images), logits, strict=True):
        expected = answers[image[:-1].contiguous().numpy().tobytes()]
        torch.testing.assert_close(found[: len(expected)], expected)
        assert (found[len(expected) :] == -torch.inf).all()


def test_gradients_are_those_of_each_task_by_itself():
    network, (whole, parts) = routed(), mixed()
    cross_entropy(network(as_float(whole.images)), whole.labels).backward()
    found = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    for number, part in enumerate(parts):
        logits = network.heads[number](network.backbone(as_float(part.images)))
        (cross_entropy(logits, part.labels, reduction="sum") / 18).backward()
    for one, parameter in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)


def test_heads_without_examples_get_no_gradient():
    network, part = routed(), tagged(split(4, 0), 1)
    cross_entropy(network(as_float(part.images)), part.labels).backward()
    assert [head.weight.grad is not None for head in network.heads] == [False, True, False]


@pytest.mark.parametrize("floats", [True, False])
@pytest.mark.parametrize("task", [0, 1, 2])
def test_crops_and_flips_leave_the_number_of_the_task(floats: bool, task: int):
    network, part = routed().eval(), tagged(split(50, 0, floats=floats), task)
    generator = torch.Generator().manual_seed(0)
    varied = augment(as_float(part.images), Augmentation.CROP_FLIP, generator)
    assert not torch.equal(varied, as_float(part.images))
    with torch.no_grad():
        found, expected = network(varied), network.heads[task](network.backbone(varied[:, :-1]))
    torch.testing.assert_close(found[:, : WIDTHS[task]], expected)


@pytest.mark.parametrize("floats", [True, False])
def test_the_largest_number_of_a_task_comes_through(floats: bool):
    part = tagged(split(3, 0, floats=floats), 255)
    assert (as_float(part.images)[:, -1] * 255).round().eq(255).all()
    with pytest.raises(SettingsError, match="task 256: at most 256 tasks can be learned together"):
        tagged(split(3, 0, floats=floats), 256)


def test_images_keep_their_type_where_all_have_the_same():
    assert joined([split(2, 0), split(3, 1)]).images.dtype == torch.uint8
    both = joined([split(2, 0), split(3, 1, floats=True)])
    torch.testing.assert_close(both.images, as_float(joined([split(2, 0), split(3, 1)]).images))
