"""What every method promises, whatever it is: fit, predict, size, save, load, determinism, refusals."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from structured_ensembles import Ensemble, NetworkSpec, methods, settings
from structured_ensembles.errors import ArtefactError, DataError, NetworkError, SettingsError
from structured_ensembles.methods.deep import DeepEnsemble
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.methods.structured import StructuredEnsemble
from structured_ensembles.options.catalogue import METHODS

if TYPE_CHECKING:
    from pathlib import Path

SPEC = NetworkSpec("small_cnn", (1, 8, 8), 3)
FAST = replace(
    settings(),
    search=replace(settings().search, epochs=1),
    training=replace(settings().training, epochs=2),
)
NEEDS_LIBRARY = ("packed", "masksembles")
SHARED = ("mc_dropout", "batch_ensemble", "packed", "masksembles", "mimo")
LIBRARY = importlib.util.find_spec("torch_uncertainty") is not None
NAMES = [name for name in METHODS if LIBRARY or name not in NEEDS_LIBRARY]


def images(examples: int = 60, classes: int = 3, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % classes
    pixels = torch.rand(examples, 1, 8, 8, generator=generator) / 2
    pixels[torch.arange(examples), 0, labels * 2] += 0.5  # a bright row per class
    return TensorDataset(pixels, labels)


def make(name: str, base: object = SPEC) -> Ensemble:
    return methods.make(name, base, 2, FAST)


class Fitted(dict[str, Ensemble]):
    """Each method, fitted when it is first asked for."""

    def __missing__(self, name: str) -> Ensemble:
        return self.setdefault(name, make(name).fit(DataLoader(images()), seed=1))


@pytest.fixture(scope="module")
def fitted() -> dict[str, Ensemble]:
    return Fitted()


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_members_by_batch_by_classes(name: str, fitted: dict[str, Ensemble]) -> None:
    ensemble = fitted[name]
    inputs = images().tensors[0][:5]
    logits = ensemble(inputs)
    assert logits.shape == (1 if name == "single" else 2, 5, 3)
    expected = ensemble.members[0](inputs)
    assert torch.equal(logits if name in SHARED else logits[0], expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_prediction_is_the_mean_of_its_members(name: str, fitted: dict[str, Ensemble]) -> None:
    inputs = images().tensors[0]
    prediction = fitted[name].predict(inputs, batch_size=7)
    expected = fitted[name](inputs).softmax(-1).mean(0)
    torch.testing.assert_close(prediction.probabilities, expected)
    torch.testing.assert_close(prediction.probabilities.sum(-1), torch.ones(60))
    assert prediction.votes.shape == (1 if name == "single" else 2, 60)


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


def test_methods_by_name() -> None:
    assert METHODS["deep"] is DeepEnsemble
    with pytest.raises(SettingsError, match="did you mean 'structured'"):
        METHODS["structurd"]


@pytest.mark.parametrize("name", ["deep", "narrow", "narrow_sliced", "magnitude"])
def test_one_module_cannot_be_drawn_many_times(name) -> None:
    with pytest.raises(SettingsError, match=f"{name} draws each member afresh: give the class MyNet"):
        METHODS[name](MyNet(), 3)


def test_the_first_member_of_a_deep_ensemble_is_the_single_network(fitted: dict[str, Ensemble]) -> None:
    inputs = images().tensors[0]
    assert torch.equal(fitted["deep"](inputs)[0], fitted["single"](inputs)[0])


def test_member_counts_below_one_are_refused() -> None:
    for kind in (StructuredEnsemble, DeepEnsemble):
        with pytest.raises(SettingsError, match="members 0"):
            kind(SPEC, 0)
    assert SingleNetwork(SPEC).count == 1
    assert DeepEnsemble(SPEC, np.int64(2)).count == 2  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="settings must be Settings"):
        DeepEnsemble(SPEC, 2, {"epochs": 3})  # type: ignore[arg-type]


class Varied(Dataset):
    """Images that are never read the same twice, with both generators that transforms draw from."""

    targets = images().tensors[1]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = torch.rand(1, 8, 8) + np.random.rand()  # noqa: NPY002
        return images().tensors[0][index] + noise / 10, int(self.targets[index])


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
def test_names_and_seeds_of_other_kinds_can_be_saved(name: str, tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    make(name).fit(images(), classes=np.array([1, 2, 3]), seed=np.int64(4)).save(path)
    assert Ensemble.load(path).record.classes == ("1", "2", "3")


@pytest.mark.parametrize("name", NAMES)
def test_an_unfitted_one_has_no_size(name: str) -> None:
    with pytest.raises(SettingsError, match="call fit"):
        make(name).size()


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_pickled(name: str, fitted: dict[str, Ensemble]) -> None:
    inputs = images().tensors[0]
    assert torch.equal(pickle.loads(pickle.dumps(fitted[name]))(inputs), fitted[name](inputs))


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
def test_a_directory_of_other_data_is_refused(name: str, tmp_path: Path) -> None:
    make(name).fit(images(), seed=1, directory=tmp_path)
    with pytest.raises(SettingsError, match="a fit of other data"):
        make(name).fit(images(seed=7), seed=1, directory=tmp_path)


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


def test_a_directory_that_is_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(SettingsError, match="is a file: take another"):
        make("single").fit(images(), directory=tmp_path / "state")


def test_batches_of_a_prediction_hold_something(fitted: dict[str, Ensemble]) -> None:
    with pytest.raises(SettingsError, match="batch_size 0 must be at least 1"):
        fitted["single"].predict(images().tensors[0], batch_size=0)


class Unchained(MyNet):
    def train(self, mode: bool = True) -> None:
        super().train(mode)


@pytest.mark.parametrize("name", ["deep", "structured"])
def test_a_train_that_returns_nothing_will_do(name: str) -> None:
    assert len(make(name, Unchained).fit(images()).members) == 2
