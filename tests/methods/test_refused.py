"""What no method fits on: data, networks and arguments that are refused before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from structured_ensembles import NetworkSpec
from structured_ensembles.errors import DataError, NetworkError, SettingsError
from structured_ensembles.methods.deep import DeepEnsemble
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.methods.structured import StructuredEnsemble
from structured_ensembles.options.catalogue import METHODS

from .every import NAMES, SPEC, MyNet, images, make

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", NAMES)
def test_one_class_is_refused(name: str) -> None:
    dataset = TensorDataset(images().tensors[0], torch.zeros(60, dtype=torch.int64))
    with pytest.raises(DataError, match="class"):
        make(name).fit(dataset, classes=("a", "b", "c"))


@pytest.mark.parametrize("name", NAMES)
def test_one_example_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="1 example"):
        make(name).fit(TensorDataset(torch.rand(1, 1, 8, 8), torch.tensor([2])))


@pytest.mark.parametrize("name", NAMES)
def test_images_of_another_shape_are_refused_before_training(name: str) -> None:
    with pytest.raises(NetworkError, match=r"fails on inputs of shape \(2, 3, 8, 8\)"):
        make(name).fit(TensorDataset(torch.rand(60, 3, 8, 8), images().tensors[1]))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_with_another_number_of_classes_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="3 outputs but there are 4 classes"):
        make(name).fit(images(classes=4))


@pytest.mark.parametrize("name", ["deep", "narrow", "narrow_sliced", "magnitude"])
def test_one_module_cannot_be_drawn_many_times(name) -> None:
    with pytest.raises(SettingsError, match=f"{name} draws each member afresh: give the class MyNet"):
        METHODS[name](MyNet(), 3)


def test_member_counts_below_one_are_refused() -> None:
    for kind in (StructuredEnsemble, DeepEnsemble):
        with pytest.raises(SettingsError, match="members 0"):
            kind(SPEC, 0)
    assert SingleNetwork(SPEC).count == 1
    assert DeepEnsemble(SPEC, np.int64(2)).count == 2  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="settings must be Settings"):
        DeepEnsemble(SPEC, 2, {"epochs": 3})  # type: ignore[arg-type]


class Items(Dataset):
    def __init__(self, items: list[object]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


IMAGE = torch.rand(1, 8, 8)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"image": IMAGE, "label": 0}], r"must be a pair \(input, label\), got a dict of 2"),
        ([(IMAGE, 0, 1.0)], "got a tuple of 3"),
        ([((IMAGE, IMAGE), 0)], "an input must be ONE tensor"),
        ([([0.5] * 64, 0)], "must be ONE tensor or array, not a list"),
        ([(object(), 0)], r"turn images into tensors with ToTensor\(\)"),
        ([(IMAGE, 0), (IMAGE[:, 1:], 1)], "of the same shape in every example"),
        ([], "empty"),
    ],
)
def test_examples_of_another_form_are_refused(items: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make("single").fit(Items(items))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "the data are a NoneType: give a DataLoader"),
        ([(torch.rand(2, 1, 8, 8), ["cat", "dog"])], r"must hold tensors or arrays .*give their names as classes="),
    ],
)
def test_data_of_another_kind_are_refused(source: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make("single").fit(source)


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.linear = nn.Linear(64, 12), nn.Linear(12, 3)

    def forward(self, inputs: torch.Tensor) -> object:
        logits = self.linear(self.hidden(inputs.flatten(1)).relu())
        return (logits, logits) if self.training else logits


class Cosine(Auxiliary):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.hidden(inputs.flatten(1)).relu()
        return nn.functional.linear(hidden, nn.functional.normalize(self.linear.weight))


def test_a_network_that_returns_more_in_training_is_refused_before_it() -> None:
    with pytest.raises(NetworkError, match=r"in training mode must be logits .* but is tuple.*aux_logits=False"):
        make("single", Auxiliary).fit(images())


@pytest.mark.parametrize("name", ["batch_ensemble", "masksembles"])
def test_layers_that_are_read_without_being_called_are_told_of(name: str) -> None:
    with pytest.raises(NetworkError, match=f"cannot be turned into one of {name} .*Have it call the layer"):
        make(name, Cosine).fit(images())


@pytest.mark.filterwarnings("ignore")  # torch's own, of tracing
@pytest.mark.parametrize("name", ["single", "structured"])
def test_a_scripted_network_is_refused(name: str) -> None:
    with pytest.raises(NetworkError, match="give the module that it was made of"):
        make(name, torch.jit.trace(Cosine(), torch.rand(2, 64))).fit(images())


def test_a_seed_is_a_whole_number() -> None:
    with pytest.raises(SettingsError, match=r"seed 1\.5 must be a whole number"):
        make("single").fit(images(), seed=1.5)


def test_double_inputs_are_told_how_to_become_float() -> None:
    inputs, labels = images().tensors
    with pytest.raises(NetworkError, match=r"type float64: .*convert the inputs with \.float\(\)"):
        make("single").fit(TensorDataset(inputs.double(), labels))


def test_held_out_images_of_another_shape_are_refused_before_training() -> None:
    held_out = TensorDataset(torch.rand(9, 3, 8, 8), torch.arange(9) % 3)
    with pytest.raises(NetworkError, match=r"fails on inputs of shape \(2, 3, 8, 8\)"):
        make("single").fit(images(), held_out)


def test_a_network_asked_for_with_another_shape_is_refused_before_training() -> None:
    with pytest.raises(DataError, match=r"asked for with inputs \(1, 16, 16\), but the examples have \(1, 8, 8\)"):
        make("single", NetworkSpec("resnet20", (1, 16, 16), 3)).fit(images())


@pytest.mark.parametrize(
    ("base", "message"),
    [(nn.Linear, r"cannot be made \(.*without arguments"), (lambda: 3, "made a int: it must be an nn.Module")],
)
def test_what_makes_no_network_is_refused(base: object, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        make("single", base).fit(images())


@pytest.mark.parametrize("name", NAMES)
def test_infinite_inputs_are_counted_before_training(name: str) -> None:
    inputs, labels = images().tensors
    inputs[9, 0, 1, 1], inputs[40, 0, 0, 0] = float("nan"), float("inf")
    with pytest.raises(DataError, match="2 NaN or infinite values, the first in example 9"):
        make(name).fit(TensorDataset(inputs, labels))


def test_examples_that_come_out_twice_are_not_split_between_training_and_held_out() -> None:
    sampler = WeightedRandomSampler([1.0] * 60, 60)
    with pytest.raises(DataError, match=r"held out at once\. Give held_out="):
        make("single").fit(DataLoader(images(), sampler=sampler))
    assert make("single").fit(DataLoader(images(), sampler=sampler), held_out=images(12)).trained


@pytest.mark.parametrize("name", ["deep", "single", "structured"])
def test_a_function_that_gives_one_network_each_time_is_refused(name: str) -> None:
    network = MyNet()
    with pytest.raises(NetworkError, match=r"gives the same one each time.* the class MyNet, or the network itself"):
        make(name, lambda: network).fit(images())


@pytest.mark.parametrize("name", ["single", "structured"])
def test_a_network_that_ends_in_a_softmax_is_refused(name: str) -> None:
    with pytest.raises(NetworkError, match="outputs are probabilities: leave out the softmax at its end"):
        make(name, lambda: nn.Sequential(MyNet(), nn.Softmax(1))).fit(images())


def test_a_directory_that_is_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(SettingsError, match="is a file: take another"):
        make("single").fit(images(), directory=tmp_path / "state")
