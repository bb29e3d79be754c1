from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from structured_ensembles import NetworkSpec, SingleNetwork, StructuredEnsemble, settings
from structured_ensembles.channels import topology
from structured_ensembles.data.batches import loader
from structured_ensembles.data.examples import Examples
from structured_ensembles.errors import ArtefactError, BudgetError, DataError, SettingsError
from structured_ensembles.options.budget import Budget, Unit
from structured_ensembles.options.choices import Combine, Preset, Reduce, Scope
from structured_ensembles.options.ensemble import Settings
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.scores.search import _cycle

if TYPE_CHECKING:
    from pathlib import Path

SPEC = NetworkSpec("small_cnn", (1, 8, 8), 3)
FAST = replace(settings(), search=replace(settings().search, epochs=1), training=replace(settings().training, epochs=1))


def images(examples: int = 60) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(examples, 1, 8, 8, generator=generator), torch.arange(examples) % 3)


def structured(members: int = 2, **arguments: object) -> StructuredEnsemble:
    return StructuredEnsemble(SPEC, members, **{"settings": FAST, **arguments})


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("amount", [0.5, 1, 2])
@pytest.mark.parametrize("unit", list(Unit))
def test_the_size_is_within_the_budget_and_nearly_uses_it(amount: float, unit: Unit) -> None:
    dense = SingleNetwork(SPEC, settings=FAST).fit(images()).size()
    ensemble = structured(budget=Budget(amount, unit, relative=True)).fit(images())
    cost, base = getattr(ensemble.size(), str(unit)), getattr(dense, str(unit))
    assert 0.9 * amount * base < cost <= amount * base


@pytest.mark.usefixtures("untrained")
def test_the_saved_file_is_within_the_budget(tmp_path: Path) -> None:
    single, path = SingleNetwork(SPEC, settings=FAST).fit(images()), tmp_path / "one.safetensors"
    single.save(path)
    ensemble = structured(4, budget="1x").fit(images())
    ensemble.save(tmp_path / "four.safetensors")
    assert (tmp_path / "four.safetensors").stat().st_size <= path.stat().st_size


def test_a_generous_budget_keeps_everything() -> None:
    ensemble = structured(budget="9x").fit(images())
    found = topology.find(ensemble.draw(0), images().tensors[0])
    for kept in ensemble.record.channels:
        assert {name: len(channels) for name, channels in kept.items()} == found.widths


def test_an_impossible_budget_is_refused_before_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("the search must not start")

    monkeypatch.setattr("structured_ensembles.methods.structured.search", never)
    with pytest.raises(BudgetError, match=r"a budget of 100 bytes is impossible for 2 members.*smallest possible"):
        structured(budget="100 bytes").fit(images())


def test_keep_is_the_share_of_channels() -> None:
    ensemble = structured(keep=0.25).fit(images())
    total = sum(topology.find(ensemble.draw(0), images().tensors[0]).widths.values())
    for kept in ensemble.record.channels:
        assert sum(map(len, kept.values())) == pytest.approx(0.25 * total, abs=1)


def test_budget_and_keep_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="either a budget or keep"):
        structured(budget="1x", keep=0.5)


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5, float("nan")])
def test_keep_outside_its_range_is_refused(keep: float) -> None:
    with pytest.raises(SettingsError, match=r"outside \(0, 1\]"):
        structured(keep=keep)


def test_a_search_batch_below_the_members_is_refused() -> None:
    tiny = replace(FAST, search=replace(FAST.search, batch_size=4))
    with pytest.raises(SettingsError, match=r"batch of 4 cannot be divided among 5 members"):
        structured(5, settings=tiny)


def test_more_members_than_examples_in_the_last_batch_just_works() -> None:
    tiny = replace(FAST, search=replace(FAST.search, batch_size=8))
    assert len(structured(7, settings=tiny, keep=0.5).fit(images(19)).members) == 7


def test_members_start_as_slices_of_the_base() -> None:
    frozen = replace(FAST, training=replace(FAST.training, learning_rate=1e-30, weight_decay=0.0))
    ensemble = structured(settings=frozen, keep=0.5).fit(images())
    base = ensemble.draw(0)
    name = next(iter(ensemble.record.channels[0]))
    for member, kept in zip(ensemble.members, ensemble.record.channels, strict=True):
        weight = base.get_submodule(name).weight[kept[name]]
        torch.testing.assert_close(member.get_submodule(name).weight, weight, atol=1e-6, rtol=0)


def test_re_initialised_members_start_apart_from_the_base_and_from_each_other() -> None:
    frozen = replace(FAST, re_init=True, training=replace(FAST.training, learning_rate=1e-30, weight_decay=0.0))
    ensemble = structured(settings=frozen, keep=1.0).fit(images())
    name = next(iter(ensemble.record.channels[0]))
    weights = [network.get_submodule(name).weight for network in (ensemble.draw(0), *ensemble.members)]
    assert not any(torch.allclose(one, other) for one, other in itertools.combinations(weights, 2))


def test_shrink_rounds_narrow_the_base_first() -> None:
    plain = structured(keep=1.0).fit(images())
    shrunk = structured(keep=1.0, settings=replace(FAST, shrink_rounds=2, shrink_keep=0.7)).fit(images())
    kept, whole = (sum(map(len, e.record.channels[0].values())) for e in (shrunk, plain))
    assert kept == pytest.approx(0.49 * whole, abs=2)
    first, second = shrunk.record.channels
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_published_preset_runs() -> None:
    published = settings(Preset.PUBLISHED)
    published = replace(
        published, search=replace(published.search, epochs=1), training=replace(published.training, epochs=1)
    )
    ensemble = StructuredEnsemble(SPEC, 3, settings=published).fit(images())
    assert len(ensemble.members) == 3
    assert ensemble.record.combine == "logits"


@pytest.mark.parametrize("scope", ["private", "coupled"])
def test_a_module_can_be_given_instead_of_a_factory(scope: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ensemble = StructuredEnsemble(network, 2, keep=0.5, settings=FAST).fit(images())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(member[1].out_features == 10 for member in ensemble.members)


def test_labels_beyond_the_named_classes_are_refused() -> None:
    with pytest.raises(DataError, match="3 outputs but there are 2 classes"):
        structured().fit(images(), classes=("a", "b"))


def test_a_held_out_set_can_be_given() -> None:
    ensemble = structured().fit(images(), held_out=images(9))
    assert len(ensemble.trained) == 2


def test_held_out_labels_are_checked_too() -> None:
    with pytest.raises(DataError, match=r"label 5 is outside 0 \.\.\. 2"):
        structured().fit(images(), held_out=TensorDataset(torch.rand(2, 1, 8, 8), torch.tensor([0, 5])))


def test_another_fit_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    structured().fit(images(), directory=tmp_path)
    with pytest.raises(SettingsError, match="another seed"):
        structured().fit(images(), directory=tmp_path, seed=5)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fit": 1}', '{"fit": "x", "channels": [3]}'])
def test_damaged_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "channels.json").write_text(text)
    with pytest.raises(ArtefactError, match="damaged"):
        structured().fit(images(), directory=tmp_path)


def test_a_rejection_threshold_comes_with_the_fit() -> None:
    threshold = structured().fit(images()).record.summary["rejection_threshold"]
    assert threshold is None or threshold >= 0


def test_the_summary_of_many_members_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    each = structured(keep=0.5).fit(images()).record.summary
    assert len(each["best_epochs"]) == len(each["held_out_accuracies"]) == 2
    monkeypatch.setattr("structured_ensembles.methods.fitting.MOST_SUMMARISED", 1)
    assert isinstance(structured(keep=0.5).fit(images()).record.summary["held_out_accuracy"], float)


def test_one_budget_written_two_ways_is_one_fit(tmp_path: Path) -> None:
    structured(budget=Budget(1, relative=True)).fit(images(), directory=tmp_path)
    again = structured(budget="1.0x").fit(images(), directory=tmp_path)
    assert len(again.members) == 2


def test_choices_of_the_settings_may_be_given_by_their_names():
    named = Settings(scope="private", reduce="max", combine="logits")
    assert (named.scope, named.reduce, named.combine) == (Scope.PRIVATE, Reduce.MAX, Combine.LOGITS)
    assert type(named.scope) is Scope
    with pytest.raises(SettingsError, match="unknown scope 'couple': did you mean 'coupled'"):
        Settings(scope="couple")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank_batches": 1.5}, "rank_batches 1.5 must be a whole number"),
        ({"held_out": "a tenth"}, "held_out 'a tenth' must be a number"),
        ({"shrink_rounds": None}, "shrink_rounds None must be a whole number"),
        ({"training": {"epochs": 2}}, r"training must be TrainingSettings\(\.\.\.\), not {'epochs': 2}"),
        ({"budget": "lots"}, "budget 'lots' is not understood"),
    ],
)
def test_numbers_are_numbers(change, message) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(**change)
    with pytest.raises(SettingsError, match=r"keep '\.3' must be a number"):
        structured(keep=".3")


def test_a_budget_may_be_written() -> None:
    assert Settings(budget="2 MB") == Settings(budget=Budget(2_000_000))


def test_whole_numbers_of_numpy_will_do() -> None:
    training = TrainingSettings(epochs=np.int64(2), patience=None)
    assert type(training.epochs) is int
    assert repr(training) == repr(TrainingSettings(epochs=2))


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 8), nn.Linear(64, 8)
        self.norm, self.last = nn.BatchNorm1d(16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return self.last(self.norm(torch.cat([self.a(x), self.b(x)], dim=1)).relu())


def test_shrink_rounds_narrow_what_is_concatenated() -> None:
    shrinking = replace(FAST, shrink_rounds=1, shrink_keep=0.5)
    ensemble = StructuredEnsemble(Joined, 2, keep=0.5, settings=shrinking).fit(images())
    assert all(member.last.in_features == 4 for member in ensemble.members)


@pytest.mark.parametrize("count", [60, 61, 80])  # 20 a batch; a last batch of one is joined to the one before
@pytest.mark.parametrize(("epochs", "steps", "ranked"), [(2, None, None), (3, 5, 1), (1, 1, 9), (0, None, 3)])
def test_preparation_costs_the_examples_that_are_passed(epochs, steps, ranked, count) -> None:
    batches = loader(images(count), 20, 0)
    total = min(len(batches) * epochs, len(batches) * epochs if steps is None else steps)
    searched = sum(len(inputs) for inputs, _ in _cycle(batches, total))
    passed = sum(len(inputs) for inputs, _ in itertools.islice(batches, ranked))
    search = replace(FAST.search, epochs=epochs, max_steps=steps, batch_size=20)
    ensemble = structured(settings=replace(FAST, search=search, rank_batches=ranked))
    assert ensemble.examples_passed(Examples.of(images(count))) == (searched, passed)


def test_one_network_cannot_be_drawn_afresh() -> None:
    with pytest.raises(SettingsError, match="re_init draws each member afresh: give the class Joined"):
        StructuredEnsemble(Joined(), settings=replace(FAST, re_init=True))


def test_a_budget_without_a_unit_is_refused() -> None:
    with pytest.raises(SettingsError, match="budget '5000' is not understood"):
        structured(budget=5000)


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.uint16, torch.uint64])
def test_labels_may_be_whole_numbers_of_any_width(kind: torch.dtype) -> None:
    inputs, labels = images().tensors
    with torch.no_grad():
        ensemble = structured(keep=0.5).fit(TensorDataset(inputs, labels.to(kind)))
    assert len(ensemble.members) == 2
