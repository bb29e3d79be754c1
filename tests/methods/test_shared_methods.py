"""Methods that train one network which answers M times: budgets, what is left alone, and forged files."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils.data import TensorDataset

from structured_ensembles import Ensemble, NetworkSpec, implicit, settings
from structured_ensembles.artefact import file as artefact
from structured_ensembles.data.examples import Examples
from structured_ensembles.errors import ArtefactError, BudgetError, NetworkError, SettingsError
from structured_ensembles.implicit import Form
from structured_ensembles.methods.batch_ensemble import BatchEnsemble
from structured_ensembles.methods.fitting import Fittable
from structured_ensembles.methods.masksembles import Masksembles
from structured_ensembles.methods.mc_dropout import MCDropout
from structured_ensembles.methods.packed import PackedEnsemble
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.options.budget import Budget
from structured_ensembles.options.catalogue import FORMS, METHODS
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.training import _lightning
from structured_ensembles.training.loop import train

from .conftest import images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from structured_ensembles.networks.sizes import Cost

SPEC = NetworkSpec("small_cnn", (1, 8, 8), 3)
STEP = 1 / 512
"""By what the width of a packed network is widened, in that of the base."""
BY_FORM = {
    "dropout": "mc_dropout",
    "rank_one": "batch_ensemble",
    "packed": "packed",
    "masked": "masksembles",
    "mimo": "mimo",
}


def packed(members: int = 3, *, budget: str | None = None, alpha: float | None = None) -> PackedEnsemble:
    pytest.importorskip("torch_uncertainty")
    chosen = replace(settings(), budget=Budget.parse(budget) if budget else None)
    return PackedEnsemble(SPEC, members, alpha=alpha, settings=chosen)


def cost(size: Cost, budget: str) -> int:
    if "params" in budget:
        return size.parameters
    return size.flops if "flops" in budget else size.bytes


# --- packed ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("budget", ["0.5x", "1x", "2x", "1x params", "0.7x flops"])
def test_packed_takes_the_widest_within_the_budget(budget: str) -> None:
    ensemble = packed(budget=budget).fit(images())
    limit = Budget.parse(budget).limit(cost(SingleNetwork(SPEC).fit(images()).size(), budget))
    alpha = ensemble.record.form.arguments["alpha"]
    assert (alpha / STEP).is_integer()
    assert cost(ensemble.size(), budget) <= limit
    assert cost(packed(alpha=alpha + STEP).fit(images()).size(), budget) > limit


@pytest.mark.usefixtures("untrained")
def test_packed_within_plenty_is_as_wide_as_the_method_goes() -> None:
    assert packed(2, budget="50x").fit(images()).record.form.arguments["alpha"] == 4


@pytest.mark.usefixtures("untrained")
def test_an_impossible_budget_names_the_smallest_packed_one() -> None:
    with pytest.raises(BudgetError, match=r"a budget of 1,000 bytes is impossible for 3 members") as caught:
        packed(budget="1kB").fit(images())
    smallest = int(re.search(r"costs ([\d,]+)", str(caught.value))[1].replace(",", ""))
    assert packed(budget=f"{smallest} bytes").fit(images()).size().bytes <= smallest
    with pytest.raises(BudgetError, match=f"costs {smallest:,}"):
        packed(budget=f"{smallest - 1} bytes").fit(images())


def test_packed_without_budget_and_width_says_what_to_give() -> None:
    with pytest.raises(SettingsError, match="give a budget, or alpha"):
        packed().fit(images())


@pytest.mark.parametrize("name", ["packed", "masksembles"])
def test_a_missing_library_is_named_before_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("", ".layers", ".layers.packed", ".layers.masksembles"):
        monkeypatch.setitem(sys.modules, f"torch_uncertainty{module}", None)
    trainings: list[object] = []
    monkeypatch.setattr(Fittable, "train_member", lambda *arguments: trainings.append(arguments))
    with pytest.raises(SettingsError, match=r"pip install 'structured-ensembles\[compare\]'"):
        METHODS[name](SPEC, 2, settings=replace(settings(), budget=Budget.parse("1x"))).fit(images())
    assert not trainings


# --- MC dropout -----------------------------------------------------------------------------------------------------


class Backwards(nn.Module):
    """Declares its output layer first."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.hidden = nn.Linear(16, 3), nn.Linear(64, 16)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.out(self.hidden(inputs.flatten(1)).relu())


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(("base", "output"), [(SPEC, "13"), (Backwards, "out")])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_dropped_after_the_output_layer(base: object, output: str, training: bool) -> None:
    ensemble = MCDropout(base, 5, probability=0.9, settings=settings()).fit(images(), seed=3)
    form = ensemble.record.form
    assert form.arguments == {"output": form.arguments["output"], "probability": 0.9, "seed": 3}
    assert str(form.arguments["output"]).removeprefix("network.") == output
    network = ensemble.members[0].train(training)
    last = network.network.get_submodule(form.arguments["output"])
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([1.0, 2.0, 3.0])
    logits = network(images().tensors[0])  # whatever was dropped before it
    assert torch.equal(logits, torch.tensor([1.0, 2.0, 3.0]).expand_as(logits))


@pytest.mark.usefixtures("untrained")
def test_hidden_layers_are_dropped() -> None:
    ensemble = MCDropout(Backwards, 5, probability=0.5, settings=settings()).fit(images())
    logits = ensemble(images().tensors[0])
    assert all(not torch.equal(logits[0], other) for other in logits[1:])


# --- BatchEnsemble --------------------------------------------------------------------------------------------------


def decays_of(base: object, kind: type[Fittable], monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """By name, the weight decay under which a real training puts every parameter."""
    decays: dict[str, float] = {}

    class Watched(torch.optim.SGD):
        def __init__(self, groups: list[dict], *args: object, **kwargs: object) -> None:
            super().__init__(groups, *args, **kwargs)
            self.decays = {id(p): group["weight_decay"] for group in self.param_groups for p in group["params"]}

    optimiser = _lightning._optimiser

    def watched(network: nn.Module, chosen: object) -> torch.optim.Optimizer:
        made = optimiser(network, chosen)
        decays.update({name: made.decays[id(parameter)] for name, parameter in network.named_parameters()})
        return made

    monkeypatch.setattr(_lightning, "SGD", Watched)
    monkeypatch.setattr(_lightning, "_optimiser", watched)
    training = replace(settings().training, epochs=1, weight_decay=0.25)
    chosen = replace(settings(), training=training)
    (kind(base, settings=chosen) if kind is SingleNetwork else kind(base, 2, settings=chosen)).fit(images())
    return decays


@pytest.mark.parametrize("base", [SPEC, Backwards])
def test_weight_decay_spares_the_factors_and_nothing_else(base: object, monkeypatch: pytest.MonkeyPatch) -> None:
    decays = decays_of(base, BatchEnsemble, monkeypatch)
    factors = {name for name in decays if name.endswith((".r", ".s"))}
    assert len(factors) == (8 if base is SPEC else 4)
    assert {name for name, decay in decays.items() if decay == 0} == factors
    assert {decay for name, decay in decays.items() if name not in factors} == {0.25}


def test_weight_decay_spares_nothing_of_a_plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(decays_of(SPEC, SingleNetwork, monkeypatch).values()) == {0.25}


# --- forged files ---------------------------------------------------------------------------------------------------


class HeadFirst(nn.Module):
    """Defines its layers in another order than it runs them."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.last, self.stem = nn.Linear(12, 12), nn.Linear(12, 3), nn.Linear(64, 12)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.head(self.stem(inputs.flatten(1)).relu()).relu())


def test_masks_leave_the_input_alone_whatever_is_defined_first(tmp_path: Path) -> None:
    pytest.importorskip("torch_uncertainty")
    fast = replace(settings(), training=TrainingSettings(epochs=1))
    ensemble = Masksembles(HeadFirst, 2, settings=fast).fit(images())
    network = ensemble.members[0].network
    assert isinstance(network.stem, nn.Linear)
    assert network.head.masks.shape == network.last.masks.shape == (2, 12)
    ensemble.save(tmp_path / "it.safetensors")
    loaded = Ensemble.load(tmp_path / "it.safetensors", HeadFirst)
    inputs = images().tensors[0]
    assert torch.equal(loaded.logits(inputs), ensemble.logits(inputs))
    with pytest.raises(NetworkError, match="there is no layer 'nothing'"):
        implicit.make(HeadFirst, Form("masked", {"first": "nothing"}), 2)


SAVED: dict[tuple[str, str], bytes] = {}
"""By form and network, the file of an ensemble of it: made once, and never changed."""


def saved(form: str, path: Path, base: object = SPEC) -> None:
    if form in ("packed", "masked"):
        pytest.importorskip("torch_uncertainty")
    key = form, repr(base)
    if key not in SAVED:
        chosen = replace(settings(), budget=Budget.parse("1x"))
        METHODS[BY_FORM[form]](base, 2, settings=chosen).fit(images()).save(path)
        SAVED[key] = path.read_bytes()
    path.write_bytes(SAVED[key])


def forge(path: Path, **changes: object) -> Path:
    """A file whose digest is right and whose record is not."""
    record, tensors = artefact.read(path)
    forged = path.with_name("forged")
    artefact.write(forged, tensors, replace(record, **changes))
    return forged


@contextmanager
def nothing_huge(elements: int = 2**26) -> Iterator[None]:
    """After the block, no module was given a tensor once those before it had come to some number of elements."""
    sizes: list[int] = []

    def count(_module: nn.Module, _name: str, tensor: torch.Tensor | None) -> None:
        sizes.append(0 if tensor is None else tensor.numel())

    hooks = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    # What is over the limit is only reserved: the memory of a tensor that nobody has written to is not taken.
    assert sum(sizes[:-1]) <= elements


def test_the_helper_can_fail() -> None:
    with pytest.raises(AssertionError), nothing_huge(elements=8):
        nn.Linear(3, 3)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("members", [3, 1024, 1025, 2**31 - 1])
def test_files_that_claim_other_members_are_refused(form: str, members: int, tmp_path: Path) -> None:
    if form == "dropout" and members <= 1024:
        pytest.skip("members of dropout have no tensors: so many can be asked for")
    saved(form, tmp_path / "it")
    forged = forge(tmp_path / "it", members=members)
    with nothing_huge(), pytest.raises(ArtefactError):
        Ensemble.load(forged)


@pytest.mark.usefixtures("untrained")
def test_a_packed_network_out_of_proportion_is_stopped_while_it_is_built(tmp_path: Path) -> None:
    saved("packed", tmp_path / "it")
    forged = forge(tmp_path / "it", members=1024, form=Form("packed", {"alpha": 4096.0}))
    with nothing_huge(), pytest.raises(ArtefactError, match="out of proportion to the file"):
        Ensemble.load(forged)


ABSURD = {
    "dropout": [{"output": "network.3"}, {"output": 5}, {"probability": 1.5}, {"seed": -1}, {"probability": "half"}],
    "rank_one": [{"network": "x"}],
    "packed": [{"alpha": 8.0}, {"alpha": 1e9}, {"alpha": "wide"}, {"gamma": 2}, {"gamma": 2**40}],
    "masked": [{"scale": 1e9}, {"scale": None}, {"scale": "far"}],
    "mimo": [{"members": 7}],
}


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("architecture", [None, Backwards])
@pytest.mark.parametrize(
    ("form", "arguments"),
    [(form, arguments) for form in FORMS for arguments in ({"depth": 3}, {"members": 9}, *ABSURD[form])],
)
def test_forms_with_other_arguments_are_refused(
    form: str, arguments: dict[str, object], architecture: type[nn.Module] | None, tmp_path: Path
) -> None:
    if architecture is not None and form == "mimo":
        pytest.skip("mimo takes architectures by name only")
    if form == "dropout" and arguments.get("output") == "network.3" and architecture is None:
        arguments = {"output": "network.99"}  # network.3 is a layer of the small network
    saved(form, tmp_path / "it", architecture or SPEC)
    record, _ = artefact.read(tmp_path / "it")
    forged = forge(tmp_path / "it", form=Form(form, {**record.form.arguments, **arguments}))
    with nothing_huge(), pytest.raises(ArtefactError):
        Ensemble.load(forged, architecture)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("architecture", [None, Backwards])
def test_another_form_is_refused(form: str, architecture: type[nn.Module] | None, tmp_path: Path) -> None:
    others = [other for other in FORMS if other != form]
    if architecture is not None and form == "mimo":
        pytest.skip("mimo takes architectures by name only")
    saved(form, tmp_path / "it", architecture or SPEC)
    for other in others:
        forged = forge(tmp_path / "it", form=Form(other, {"alpha": 1.0} if other == "packed" else {}))
        with nothing_huge(), pytest.raises(ArtefactError):
            Ensemble.load(forged, architecture)
        forged.unlink()


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("form", FORMS)
def test_an_unknown_form_is_refused(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(form, tmp_path / "it")
    record, tensors = artefact.read(tmp_path / "it")
    unknown = Form(form)
    object.__setattr__(unknown, "name", "__import__('os')")
    with monkeypatch.context() as patch:
        patch.setattr(artefact, "decode", lambda *_: None)  # by which the writer would refuse
        artefact.write(tmp_path / "forged", tensors, replace(record, form=unknown))
    with nothing_huge(elements=0), pytest.raises(ArtefactError, match="unknown form of a shared network"):
        Ensemble.load(tmp_path / "forged")


class _Answers(nn.Module):
    """M answers without a weight in common, as packed networks give them."""

    def __init__(self, members: int, *, summed: bool) -> None:
        super().__init__()
        self.networks = nn.ModuleList(nn.Linear(4, 3) for _ in range(members))
        self.summed_loss = summed

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([network(inputs) for network in self.networks])


@pytest.mark.parametrize("summed", [True, False])
def test_where_losses_are_added_members_learn_as_if_they_were_alone(summed: bool) -> None:
    torch.manual_seed(0)
    together = _Answers(3, summed=summed)
    data = Examples.of(TensorDataset(torch.randn(24, 4), torch.arange(24) % 3))
    settings = TrainingSettings(epochs=1, batch_size=8)  # of one epoch, the best is the last
    trained = train(together, data, data, settings, seed=1).network
    alone = [train(network, data, data, settings, seed=1).network for network in together.networks]
    same = [torch.allclose(a.weight, b.weight, atol=1e-6) for a, b in zip(trained.networks, alone, strict=True)]
    assert same == [summed] * 3
