"""Networks of a user's own, whatever they keep, return or read, with every method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from structured_ensembles import Ensemble
from structured_ensembles.errors import ArtefactError, DataError, NetworkError
from structured_ensembles.methods.structured import StructuredEnsemble

from .every import FAST, NAMES, MyNet, images, make

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_the_users_own_is_passed_in_when_loading(name: str, tmp_path: Path) -> None:
    if name == "mimo":
        with pytest.raises(NetworkError, match="give a NetworkSpec"):
            make(name, MyNet).fit(images())
        return
    ensemble = make(name, MyNet).fit(images())
    path = tmp_path / "mine.safetensors"
    ensemble.save(path)
    with pytest.raises(ArtefactError, match=r"mine\.safetensors: its architecture has no name: .*architecture=MyNet"):
        Ensemble.load(path)
    inputs = images().tensors[0]
    assert torch.equal(Ensemble.load(path, architecture=MyNet)(inputs), ensemble(inputs))
    assert torch.equal(Ensemble.load(path, architecture=MyNet())(inputs), ensemble(inputs))
    inputs[1] = torch.nan
    with pytest.raises(DataError, match=r"1 of .* inputs hold NaN or infinite values, the first is input 1"):
        ensemble.predict(inputs)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.out = nn.Embedding(20, 8), nn.Linear(8, 99), nn.Linear(99, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.hidden(self.embedding(tokens).mean(1)).relu())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("mimo", "packed")])  # which refuse them
def test_inputs_may_be_whole_numbers(name: str) -> None:
    tokens = torch.randint(20, (60, 5), generator=torch.Generator().manual_seed(0))
    ensemble = make(name, Tokens).fit(TensorDataset(tokens, images().tensors[1]))
    assert ensemble.predict(tokens).probabilities.shape == (60, 3)
    assert ensemble.size().flops > 0


def test_operations_are_counted_on_inputs_of_the_kind_of_the_examples() -> None:
    tokens = torch.randint(20, (60, 5), generator=torch.Generator().manual_seed(0))
    examples = TensorDataset(tokens, images().tensors[1])
    ensemble = StructuredEnsemble(Tokens, 2, budget="1x flops", settings=FAST).fit(examples)
    assert ensemble.size().flops <= make("single", Tokens).fit(examples).size().flops


class Remembering(MyNet):
    """Keeps what it has computed."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen = super().forward(inputs)
        return self.seen


@pytest.mark.parametrize("name", ["deep", "structured"])
def test_networks_that_keep_what_they_compute_can_be_copied(name: str) -> None:
    def used() -> nn.Module:
        network = Remembering()
        network(images().tensors[0][:2])
        return network

    assert len(make(name, used).fit(images()).members) == 2


class Unchained(MyNet):
    def train(self, mode: bool = True) -> None:
        super().train(mode)


@pytest.mark.parametrize("name", ["deep", "structured"])
def test_a_train_that_returns_nothing_will_do(name: str) -> None:
    assert len(make(name, Unchained).fit(images()).members) == 2
