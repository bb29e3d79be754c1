"""What every method promises, whatever it is: fit, predict, size, save, load, determinism, refusals."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from structured_ensembles import Ensemble, methods
from structured_ensembles.errors import SettingsError
from structured_ensembles.methods.deep import DeepEnsemble
from structured_ensembles.options.catalogue import METHODS

from .every import FAST, NAMES, SHARED, SPEC, images, make

if TYPE_CHECKING:
    from pathlib import Path


class Fitted(dict[str, Ensemble]):
    """Each method, fitted when it is first asked for, in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Ensemble:
        ensemble = make(name).fit(DataLoader(images()), seed=1, directory=self.folder / name)
        return self.setdefault(name, ensemble)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return Fitted(tmp_path_factory.mktemp("fitted"))


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_members_by_batch_by_classes(name: str, fitted: Fitted) -> None:
    ensemble = fitted[name]
    inputs = images().tensors[0][:5]
    logits = ensemble(inputs)
    assert logits.shape == (1 if name == "single" else 2, 5, 3)
    expected = ensemble.members[0](inputs)
    assert torch.equal(logits if name in SHARED else logits[0], expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_prediction_is_the_mean_of_its_members(name: str, fitted: Fitted) -> None:
    inputs = images().tensors[0]
    prediction = fitted[name].predict(inputs, batch_size=7)
    expected = fitted[name](inputs).softmax(-1).mean(0)
    torch.testing.assert_close(prediction.probabilities, expected)
    torch.testing.assert_close(prediction.probabilities.sum(-1), torch.ones(60))
    assert prediction.votes.shape == (1 if name == "single" else 2, 60)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_what_is_easy(name: str) -> None:
    longer = replace(FAST, training=replace(FAST.training, epochs=8, batch_size=20))
    ensemble = methods.make(name, SPEC, 2, longer)
    prediction = ensemble.fit(images(120), seed=0).predict(images(seed=5).tensors[0])
    assert (prediction.classes == images().tensors[1]).float().mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_predicts_the_same_bits(name: str, fitted: Fitted, tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    fitted[name].save(path, measurements={"accuracy": 0.5})
    loaded = Ensemble.load(path)
    inputs = images().tensors[0]
    assert torch.equal(loaded(inputs), fitted[name](inputs))
    assert loaded.record.summary["accuracy"] == 0.5
    assert loaded.record.method == name
    assert loaded.size() == fitted[name].size()
    assert loaded.size().bytes == path.stat().st_size


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_file_and_leaves_the_global_generator(
    name: str, fitted: Fitted, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = make(name).fit(DataLoader(images(), batch_size=7, shuffle=True), seed=1)
    assert torch.equal(before, torch.get_rng_state())
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    fitted[name].save(first)
    again.save(second)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_another_ensemble_and_any_kind_of_names_and_seeds_is_saved(
    name: str, fitted: Fitted, tmp_path: Path
) -> None:
    path = tmp_path / "it.safetensors"
    make(name).fit(images(), classes=np.array([1, 2, 3]), seed=np.int64(2)).save(path)
    other = Ensemble.load(path)
    assert other.record.classes == ("1", "2", "3")
    inputs = images().tensors[0]
    assert not torch.equal(other(inputs), fitted[name](inputs))


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_fit_goes_on_to_the_same_bits(
    name: str, fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = make(name)
    train_member = type(last).train_member

    def stop(self: object, network: nn.Module, fold: object, member: int, *rest: object) -> object:
        if member == (0 if name in ("single", *SHARED) else 1):
            raise KeyboardInterrupt
        return train_member(self, network, fold, member, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(type(last), "train_member", stop)
        with pytest.raises(KeyboardInterrupt):
            last.fit(images(), seed=1, directory=tmp_path)
    resumed = make(name).fit(images(), seed=1, directory=tmp_path)
    inputs = images().tensors[0]
    assert torch.equal(resumed(inputs), fitted[name](inputs))


@pytest.mark.parametrize("name", NAMES)
def test_an_unfitted_one_says_what_to_do(name: str) -> None:
    with pytest.raises(SettingsError, match="call fit"):
        make(name).predict(torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_predict_is_an_error(name: str, fitted: Fitted) -> None:
    with pytest.raises(SettingsError, match="0 inputs"):
        fitted[name].predict(torch.rand(0, 1, 8, 8))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_an_ordinary_module(name: str, fitted: Fitted, tmp_path: Path) -> None:
    fitted[name].save(tmp_path / "it.safetensors")
    copy = Ensemble.load(tmp_path / "it.safetensors")
    copy.load_state_dict(fitted[name].state_dict())
    half = copy.to(torch.bfloat16)
    inputs = images().tensors[0][:4]
    assert half.predict(inputs).probabilities.dtype == torch.float32
    torch.testing.assert_close(
        half.predict(inputs).probabilities, fitted[name].predict(inputs).probabilities, atol=0.05, rtol=0
    )


def test_a_method_is_found_by_its_name() -> None:
    assert METHODS["deep"] is DeepEnsemble
    with pytest.raises(SettingsError, match="did you mean 'structured'"):
        METHODS["structurd"]


def test_the_first_member_of_a_deep_ensemble_is_the_single_network(fitted: Fitted) -> None:
    inputs = images().tensors[0]
    assert torch.equal(fitted["deep"](inputs)[0], fitted["single"](inputs)[0])


class Varied(Dataset):
    """Images that are never read the same twice, with both generators that transforms draw from."""

    pixels, targets = images().tensors

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = torch.rand(1, 8, 8) + np.random.rand()  # noqa: NPY002
        return self.pixels[index] + noise / 10, int(self.targets[index])


@pytest.mark.parametrize("name", NAMES)
def test_examples_varied_at_random_are_varied_the_same_each_time(name: str) -> None:
    records = []
    for state in range(2):
        torch.manual_seed(state)
        np.random.seed(state)  # noqa: NPY002
        before = torch.get_rng_state()
        records.append(make(name).fit(Varied(), seed=1).record)
        assert torch.equal(before, torch.get_rng_state())
    assert records[0].summary == records[1].summary
    for first, second in zip(*(record.channels for record in records), strict=True):
        assert all(torch.equal(first[group], second[group]) for group in first)


@pytest.mark.parametrize("name", NAMES)
def test_an_unfitted_one_has_no_size(name: str) -> None:
    with pytest.raises(SettingsError, match="call fit"):
        make(name).size()


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_pickled(name: str, fitted: Fitted) -> None:
    inputs = images().tensors[0]
    assert torch.equal(pickle.loads(pickle.dumps(fitted[name]))(inputs), fitted[name](inputs))


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_of_other_data_is_refused(name: str, fitted: Fitted) -> None:
    assert fitted[name].trained
    with pytest.raises(SettingsError, match="a fit of other data"):
        make(name).fit(images(seed=7), seed=1, directory=fitted.folder / name)


def test_batches_of_a_prediction_hold_something(fitted: Fitted) -> None:
    with pytest.raises(SettingsError, match="batch_size 0 must be at least 1"):
        fitted["single"].predict(images().tensors[0], batch_size=0)
