"""What a map-style dataset holds: how many examples, pairs (input, label), finite inputs, and which labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from structured_ensembles.errors import DataError

_CHECKED_LABELS = 16
"""So many of the labels that a dataset stores are compared with those that it gives out."""


def sized(dataset: Dataset[Any]) -> int:
    """How many examples a map-style dataset holds.

    Raises:
        DataError: If it is empty, or has no length.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"the dataset is a {type(dataset).__name__}, not a map-style dataset: pass it to as_dataset first."
        )
    try:
        length = len(dataset)  # type: ignore[arg-type]  # torch leaves __len__ out of Dataset on purpose
    except TypeError as error:
        raise DataError(f"the dataset has no length: give {type(dataset).__name__} a method __len__") from error
    if length == 0:
        raise DataError("the dataset is empty: it holds no example.")
    return length


def spread(count: int, most: int) -> range:
    """The numbers of some of so many examples, at most so many, evenly spread over all."""
    return range(0, count, -(-count // most))


def check_pair(dataset: Dataset[Any], index: int = 0) -> tuple[Any, Any]:
    """One example (input, label) of a map-style dataset.

    Raises:
        DataError: If it is something else.
    """
    example = dataset[index]
    if not isinstance(example, (tuple, list)) or len(example) != 2:
        raise DataError(f"an example must be a pair (input, label), got {described(example)}: choose two in a Dataset.")
    inputs, label = example
    return inputs, label


def described(value: object) -> str:
    """What a message calls a thing that is no pair."""
    size = f" of {len(value)}" if isinstance(value, (tuple, list, dict)) else ""
    return f"a {type(value).__name__}{size}"


def check_finite(dataset: Dataset[Any]) -> None:
    """Refuse NaN and infinite inputs of a dataset of tensors; others would have to be read whole.

    Raises:
        DataError: Naming how many values, and the first example that holds one.
    """
    chosen: Any = slice(None)
    if type(dataset) is Subset:
        chosen = [int(index) for index in dataset.indices]
        dataset = dataset.dataset
    if type(dataset) is not TensorDataset:
        return
    wrong = ~torch.isfinite(dataset.tensors[0][chosen])
    if count := int(wrong.sum()):
        raise DataError(
            f"the inputs hold {count} NaN or infinite values, the first in example {int(wrong.nonzero()[0, 0])}: mend "
            "or drop those examples"
        )


def labels_of(dataset: Dataset[Any]) -> Tensor:
    """Every label of a dataset, (N,), int64.

    Read without touching the inputs where the dataset allows it (tensors, subsets and concatenations, the ``targets``
    or ``labels`` of torchvision's sets), else in one pass.

    Raises:
        DataError: If the dataset is empty, or the labels are not whole numbers from 0 on, one for each example.
    """
    labels = _stored_labels(dataset)
    if labels is None:
        labels = _labels_by_pass(dataset)
    if len(labels) == 0:
        raise DataError("the dataset is empty: it holds no example.")
    _check_kind(labels)
    labels = labels.to("cpu", torch.int64)  # first: of wide unsigned numbers torch can do little else
    _check_range(labels)
    return labels


def _stored_labels(dataset: Dataset[Any]) -> Tensor | None:
    # An exact type: a subclass may give out something else than it stores.
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        return dataset.tensors[1]
    if type(dataset) is Subset:
        labels = _stored_labels(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(list(dataset.indices), dtype=torch.int64)]
    if type(dataset) is ConcatDataset:
        parts = [_stored_labels(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else torch.cat([part for part in parts if part is not None])
    return _attribute_labels(dataset)


def _attribute_labels(dataset: Dataset[Any]) -> Tensor | None:
    if getattr(dataset, "target_transform", None) is not None:
        return None
    stored = getattr(dataset, "targets", getattr(dataset, "labels", None))
    try:
        labels = torch.as_tensor(stored)
    except (TypeError, ValueError, RuntimeError):
        return None
    usable = not labels.is_floating_point() and labels.ndim == 1 and len(labels) == sized(dataset)
    return labels if usable and _given_out(dataset, labels) else None


def _given_out(dataset: Dataset[Any], labels: Tensor) -> bool:
    """Whether a dataset gives out what it stores, as far as a few examples show."""
    some = spread(len(labels), _CHECKED_LABELS)
    return all((label := _label(dataset, index)).ndim == 0 and bool(label == labels[index]) for index in some)


def _label(dataset: Dataset[Any], index: int) -> Tensor:
    label = check_pair(dataset, index)[1]
    try:
        return torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"the label of example {index} is {label!r}: number the classes 0 ... K-1, and give their names as "
            "classes=[...]"
        ) from error


def _labels_by_pass(dataset: Dataset[Any]) -> Tensor:
    labels = [_label(dataset, index) for index in range(sized(dataset))]
    if len({label.shape for label in labels}) > 1:
        raise DataError("labels differ in shape from example to example: each must be one whole number.")
    return torch.stack(labels)


def _check_kind(labels: Tensor) -> None:
    if labels.ndim != 1:
        raise DataError(
            f"a label must be one whole number, got labels of shape {tuple(labels.shape)}: "
            "turn one-hot rows into numbers with argmax(1), and a column into a row with squeeze(1)."
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels must be whole numbers from 0 on, got {labels.dtype}: convert them with .long().")


def _check_range(labels: Tensor) -> None:
    if int(labels.min()) < 0:
        first = int((labels < 0).nonzero()[0])
        raise DataError(
            f"labels must be whole numbers from 0 on, got {int(labels[first])} at example {first}: "
            "number the classes 0 ... K-1 and leave out examples without a class."
        )
