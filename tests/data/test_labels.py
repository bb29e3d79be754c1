from __future__ import annotations

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from structured_ensembles.data.labels import check_finite, labels_of, sized
from structured_ensembles.errors import DataError
from structured_ensembles.prediction.uncertainty import require_finite

from .conftest import Plain, tensors


def test_labels_are_the_same_by_every_way():
    data = tensors()
    plain = Plain([data[i] for i in range(10)])
    expected = [i % 3 for i in range(10)]
    assert labels_of(data).tolist() == labels_of(plain).tolist() == expected
    assert labels_of(Subset(data, [4, 2])).tolist() == labels_of(Subset(plain, [4, 2])).tolist() == [1, 2]
    assert labels_of(ConcatDataset([data, Subset(data, [1])])).tolist() == [*expected, 1]
    assert labels_of(data).dtype == torch.int64


def test_stored_labels_are_used_only_when_they_are_the_items_labels():
    items = Plain([(torch.zeros(1), 1), (torch.zeros(1), 0)])
    items.targets = ["cat", "dog"]
    assert labels_of(items).tolist() == [1, 0]
    items.targets = [0, 1]
    items.target_transform = lambda label: 1 - label
    assert labels_of(items).tolist() == [1, 0]
    items.target_transform = None
    assert labels_of(items).tolist() == [1, 0]


def test_stored_labels_save_most_of_the_reading():
    class Counting(Plain):
        read = 0

        def __getitem__(self, index):
            self.read += 1
            return super().__getitem__(index)

    items = Counting([(torch.zeros(1), i % 3) for i in range(100)])
    items.targets = [i % 3 for i in range(100)]
    assert labels_of(items).tolist() == items.targets
    assert items.read < 20


def test_what_is_no_number_and_what_has_no_length_is_refused():
    with pytest.raises(DataError, match=r"label of example 1 is 'dog': number the classes 0 ... K-1"):
        labels_of(Plain([(torch.zeros(1), 0), (torch.zeros(1), "dog")]))
    with pytest.raises(DataError, match="no length: give Dataset a method __len__"):
        labels_of(Dataset())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0.0, 1.0]), "float32.*long"),
        (torch.tensor([True, False]), "bool"),
        (torch.tensor([0, -1]), "-1 at example 1"),
        (torch.eye(2, dtype=torch.int64), r"shape \(2, 2\).*argmax"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        labels_of(TensorDataset(torch.zeros(2, 1), labels))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


def test_an_empty_dataset_is_refused():
    for data in (TensorDataset(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)), Plain([])):
        with pytest.raises(DataError, match="empty"):
            labels_of(data)
    with pytest.raises(DataError, match=r"dataset is a Stream.*as_dataset"):
        sized(Stream())


def test_inputs_that_are_not_finite_are_named():
    inputs = torch.zeros(4, 2, 2)
    require_finite(inputs)
    inputs[2, 1, 0], inputs[3, 0, 0] = torch.nan, torch.inf
    with pytest.raises(DataError, match="2 of 4 inputs hold NaN or infinite values, the first is input 2"):
        require_finite(inputs)
    with pytest.raises(DataError, match="the inputs hold 1 NaN or infinite values, the first in example 1"):
        check_finite(Subset(TensorDataset(inputs, torch.zeros(4)), [0, 3]))
    check_finite(Subset(TensorDataset(inputs, torch.zeros(4)), [0, 1]))
