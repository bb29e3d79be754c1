"""What every method promises, whatever it is: fit, predict, size, save, load, determinism, refusals."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from structured_ensembles import Ensemble, NetworkSpec, settings
from structured_ensembles.errors import ArtefactError, DataError, NetworkError, SettingsError
from structured_ensembles.methods import METHODS, DeepEnsemble, SingleNetwork, StructuredEnsemble, method

if TYPE_CHECKING:
    from pathlib import Path

SPEC = NetworkSpec("small_cnn", (1, 8, 8), 3)
FAST = replace(
    settings(),
    search=replace(settings().search, epochs=1),
    training=replace(settings().training, epochs=2),
)
NAMES = sorted(METHODS)


def images(examples: int = 60, classes: int = 3, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % classes
    pixels = torch.rand(examples, 1, 8, 8, generator=generator) / 2
    pixels[torch.arange(examples), 0, labels * 2] += 0.5  # a bright row per class
    return TensorDataset(pixels, labels)


def make(name: str, base: object = SPEC) -> Ensemble:
    kind = METHODS[name]
    return kind(base, settings=FAST) if name == "single" else kind(base, 2, settings=FAST)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Ensemble]:
    return {name: make(name).fit(DataLoader(images()), seed=1) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_members_by_batch_by_classes(name: str, fitted: dict[str, Ensemble]) -> None:
    ensemble = fitted[name]
    inputs = images().tensors[0][:5]
    logits = ensemble(inputs)
    assert logits.shape == (1 if name == "single" else 2, 5, 3)
    assert torch.equal(logits[0], ensemble.members[0](inputs))


@pytest.mark.parametrize("name", NAMES)
def test_a_prediction_is_the_mean_of_its_members(name: str, fitted: dict[str, Ensemble]) -> None:
    inputs = images().tensors[0]
    prediction = fitted[name].predict(inputs, batch_size=7)
    expected = torch.stack([member(inputs).softmax(-1) for member in fitted[name].members]).mean(0)
    torch.testing.assert_close(prediction.probabilities, expected)
    torch.testing.assert_close(prediction.probabilities.sum(-1), torch.ones(60))
    assert prediction.votes.shape == (len(fitted[name].members), 60)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_what_is_easy(name: str) -> None:
    dataset = images(240)
    longer = replace(FAST, training=replace(FAST.training, epochs=12))
    kind = METHODS[name]
    ensemble = kind(SPEC, settings=longer) if name == "single" else kind(SPEC, 2, settings=longer)
    prediction = ensemble.fit(dataset, seed=0).predict(images(seed=5).tensors[0])
    assert (prediction.classes == images().tensors[1]).float().mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_predicts_the_same_bits(name: str, fitted: dict[str, Ensemble], tmp_path: Path) -> None:
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
def test_the_same_seed_gives_the_same_file(name: str, fitted: dict[str, Ensemble], tmp_path: Path) -> None:
    torch.manual_seed(99)
    again = make(name).fit(DataLoader(images(), batch_size=7, shuffle=True), seed=1)
    other = make(name).fit(images(), seed=2)
    hashes = []
    for index, ensemble in enumerate((fitted[name], again, other)):
        ensemble.save(tmp_path / f"{index}.safetensors")
        hashes.append(hashlib.sha256((tmp_path / f"{index}.safetensors").read_bytes()).hexdigest())
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("name", NAMES)
def test_fitting_leaves_the_global_generator_alone(name: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    make(name).fit(images(), seed=1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_fit_goes_on_to_the_same_bits(
    name: str, fitted: dict[str, Ensemble], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = make(name)
    train_member = type(last).train_member

    def stop(self: object, network: nn.Module, fold: object, member: int) -> object:
        if member == (0 if name == "single" else 1):
            raise KeyboardInterrupt
        return train_member(self, network, fold, member)

    with monkeypatch.context() as patch:
        patch.setattr(type(last), "train_member", stop)
        with pytest.raises(KeyboardInterrupt):
            last.fit(images(), seed=1, directory=tmp_path)
    resumed = make(name).fit(images(), seed=1, directory=tmp_path)
    inputs = images().tensors[0]
    assert torch.equal(resumed(inputs), fitted[name](inputs))


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


@pytest.mark.parametrize("name", NAMES)
def test_an_unfitted_one_says_what_to_do(name: str) -> None:
    with pytest.raises(SettingsError, match="call fit"):
        make(name).predict(torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_predict_is_an_error(name: str, fitted: dict[str, Ensemble]) -> None:
    with pytest.raises(SettingsError, match="0 inputs"):
        fitted[name].predict(torch.rand(0, 1, 8, 8))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_an_ordinary_module(name: str, fitted: dict[str, Ensemble], tmp_path: Path) -> None:
    fitted[name].save(tmp_path / "it.safetensors")
    copy = Ensemble.load(tmp_path / "it.safetensors")
    copy.load_state_dict(fitted[name].state_dict())
    half = copy.to(torch.bfloat16)
    inputs = images().tensors[0][:4]
    assert half.predict(inputs).probabilities.dtype == torch.float32
    torch.testing.assert_close(
        half.predict(inputs).probabilities, fitted[name].predict(inputs).probabilities, atol=0.05, rtol=0
    )


class MyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 32)
        self.out = nn.Linear(32, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.out(self.hidden(inputs.flatten(1)).relu())


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_the_users_own_is_passed_in_when_loading(name: str, tmp_path: Path) -> None:
    ensemble = make(name, MyNet).fit(images())
    path = tmp_path / "mine.safetensors"
    ensemble.save(path)
    with pytest.raises(ArtefactError, match="architecture="):
        Ensemble.load(path)
    inputs = images().tensors[0]
    assert torch.equal(Ensemble.load(path, architecture=MyNet)(inputs), ensemble(inputs))


def test_methods_by_name() -> None:
    assert method("deep") is DeepEnsemble
    with pytest.raises(SettingsError, match="did you mean 'structured'"):
        method("structurd")


def test_one_module_cannot_be_drawn_many_times() -> None:
    with pytest.raises(SettingsError, match="give the class MyNet"):
        DeepEnsemble(MyNet(), 3)


def test_the_first_member_of_a_deep_ensemble_is_the_single_network(fitted: dict[str, Ensemble]) -> None:
    inputs = images().tensors[0]
    assert torch.equal(fitted["deep"](inputs)[0], fitted["single"](inputs)[0])


def test_member_counts_below_one_are_refused() -> None:
    for kind in (StructuredEnsemble, DeepEnsemble):
        with pytest.raises(SettingsError, match="members 0"):
            kind(SPEC, 0)
    assert SingleNetwork(SPEC).count == 1
