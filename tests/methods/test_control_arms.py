"""Control arms: which channels they keep, how many, and what weights their members start from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from structured_ensembles import NetworkSpec, networks, settings
from structured_ensembles.channels import topology
from structured_ensembles.methods.magnitude import MagnitudeEnsemble
from structured_ensembles.methods.narrow import NarrowEnsemble, SlicedNarrowEnsemble
from structured_ensembles.methods.random_channels import RandomEnsemble
from structured_ensembles.methods.shuffled import ShuffledEnsemble
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.methods.structured import StructuredEnsemble
from structured_ensembles.networks.architectures.resnet import ResNet, Shortcut
from structured_ensembles.options.budget import Budget
from structured_ensembles.options.catalogue import ARCHITECTURES, METHODS
from structured_ensembles.types import Side

from .conftest import fold, images

if TYPE_CHECKING:
    from collections.abc import Callable

    from structured_ensembles.methods.subnetworks import SubNetworks
    from structured_ensembles.registry import Registry
    from structured_ensembles.types import Channels, Group, Topology

pytestmark = pytest.mark.usefixtures("untrained")

SHAPES = {"small_cnn": (1, 8, 8), "lenet5": (1, 28, 28), "resnet8": (3, 8, 8)}
UNIFORM = ("narrow", "narrow_sliced", "random", "magnitude")


@pytest.fixture(autouse=True)
def resnet8(forget: Callable[[Registry], None]) -> None:
    """One block a stage: a residual stream as in resnet20, in a third of the time."""
    forget(ARCHITECTURES)
    networks.register("resnet8")(lambda shape, classes: ResNet(shape[0], classes, 1, Shortcut.PROJECT))


def spec(name: str, **arguments: int) -> NetworkSpec:
    return NetworkSpec(name, SHAPES.get(name, (1, 8, 8)), 3, arguments)


def within(budget: str | None, **selection: object):
    chosen = replace(settings().selection, **selection)
    search = replace(settings().search, epochs=1)
    return replace(settings(), budget=Budget.parse(budget) if budget else None, selection=chosen, search=search)


def fitted(kind: type[SubNetworks] | str, network: NetworkSpec, budget: str | None = "1x", seed: int = 0, **selection):
    kind = METHODS[kind] if isinstance(kind, str) else kind
    return kind(network, 3, settings=within(budget, **selection)).fit(images(network.input_shape), seed=seed)


def found(network: NetworkSpec) -> Topology:
    ensemble = SingleNetwork(network)
    return topology.find(ensemble.draw(0), torch.zeros(2, *network.input_shape), scope=settings().scope)


def places(group: Group, cut, kept: torch.Tensor) -> list[int]:
    return [cut.offset + int(c) * cut.repeat + r for c in kept for r in range(cut.repeat)]


def sliced(wide: torch.nn.Module, groups: tuple[Group, ...], kept: Channels) -> dict[str, torch.Tensor]:
    """Every tensor of a network with the removed channels taken out, one cut after the other."""
    tensors = dict(wide.state_dict())
    for group in groups:
        for cut in group.cuts:
            index = torch.tensor(places(group, cut, kept[group.name]))
            for part in ("weight", "bias", "running_mean", "running_var"):
                name, dimension = f"{cut.module}.{part}", 0 if cut.side is Side.OUT else 1
                if name in tensors and dimension < tensors[name].dim():
                    tensors[name] = tensors[name].index_select(dimension, index)
    return tensors


# --- how many channels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNIFORM)
@pytest.mark.parametrize(("network", "budget"), [("small_cnn", "1x"), ("resnet8", "0.5x params"), ("lenet5", "2x")])
def test_every_group_keeps_the_same_share(name: str, network: str, budget: str) -> None:
    record = fitted(name, spec(network), budget).record
    for kept in record.channels:
        # Of C channels w are kept by all shares from (w - 1) / (C - 1) up to w / (C - 1): one share must do for all.
        shares = [(len(kept[group.name]), group.channels - 1) for group in record.groups]
        assert max((width - 1) / last for width, last in shares) <= min(width / last for width, last in shares)
    for group in record.groups:
        widths = [len(kept[group.name]) for kept in record.channels]
        assert max(widths) - min(widths) <= 1
        assert widths == sorted(widths, reverse=True)


def one_place_more(channels: list[Channels], groups: tuple[Group, ...]) -> list[Channels]:
    """The members once the next one in turn has grown by a place: to the share that lets some group keep one more."""
    shares = [max((len(kept[group.name]) - 1) / (group.channels - 1) for group in groups) for kept in channels]
    steps = sorted({place / (group.channels - 1) for group in groups for place in range(group.channels)})
    nexts = [(min(step for step in steps if step > share), member) for member, share in enumerate(shares)]
    share, member = min(nexts)
    grown = {
        group.name: torch.arange(sum(place / (group.channels - 1) <= share for place in range(group.channels)))
        for group in groups
    }
    return [grown if at == member else kept for at, kept in enumerate(channels)]


@pytest.mark.parametrize("name", UNIFORM)
@pytest.mark.parametrize(
    ("network", "budget"), [("small_cnn", "1x"), ("small_cnn", "0.5x params"), ("small_cnn", "1x flops")]
)
def test_no_place_more_is_within_the_budget(name: str, network: str, budget: str) -> None:
    ensemble = fitted(name, spec(network), budget)
    base, unit = ensemble.draw(0), Budget.parse(budget).unit
    size, whole = ensemble.size(), SingleNetwork(spec(network)).fit(images(SHAPES[network])).size()
    cost, dense = (one.in_unit(unit) for one in (size, whole))
    limit = Budget.parse(budget).limit(dense)
    assert cost <= limit
    price = ensemble.price(base, found(spec(network)), fold(SHAPES[network]))
    assert price.of(ensemble.record.channels) == cost
    assert price.of(one_place_more(ensemble.record.channels, ensemble.record.groups)) > limit


def test_without_a_budget_the_share_to_keep_is_kept() -> None:
    record = fitted("random", spec("small_cnn"), None, keep=0.25).record
    assert [{name: len(kept) for name, kept in member.items()} for member in record.channels] == 3 * [
        {group.name: 1 + math.floor(0.25 * (group.channels - 1)) for group in record.groups}
    ]


# --- narrow ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "fan_in"), [(NarrowEnsemble, 256), (SlicedNarrowEnsemble, 512)])
def test_the_deviation_of_the_initial_weights(kind: type[SubNetworks], fan_in: int) -> None:
    ensemble = fitted(kind, spec("mlp", width=512), None, keep=0.5)
    for member in ensemble.members:
        hidden, output = [layer.weight.detach() for layer in member.modules() if isinstance(layer, torch.nn.Linear)][1:]
        assert hidden.shape == (256, 256)
        # The deviation of n normal numbers is known to one part in sqrt(2 n): 0.3 %, and 2.5 % of the output layer.
        assert float(hidden.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.015)
        assert float(output.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.12)
        assert abs(float(hidden.mean())) < 5 * math.sqrt(2 / fan_in) / 256


@pytest.mark.parametrize("network", SHAPES)
def test_members_are_slices_of_networks_of_their_own(network: str) -> None:
    ensemble = fitted(SlicedNarrowEnsemble, spec(network), seed=5)
    record = ensemble.record
    for member, kept in enumerate(record.channels):
        assert all(torch.equal(index, torch.arange(len(index))) for index in kept.values())
        expected = sliced(ensemble.draw(5, member), record.groups, kept)
        state = ensemble.members[member].state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in state.items())


@pytest.mark.parametrize("network", SHAPES)
def test_narrow_is_sliced_times_the_root_of_the_ratio_of_inputs(network: str) -> None:
    own, slices = (fitted(kind, spec(network), seed=5) for kind in (NarrowEnsemble, SlicedNarrowEnsemble))
    wide = dict(own.draw(5).named_parameters())
    scaled = 0
    for mine, other in zip(own.members, slices.members, strict=True):
        others = dict(other.named_parameters())
        for name, parameter in mine.named_parameters():
            factor = 1.0
            if parameter.dim() > 1:
                factor = math.sqrt(wide[name].shape[1:].numel() / parameter.shape[1:].numel())
            scaled += factor > 1
            torch.testing.assert_close(parameter, others[name] * factor)
        for name, buffer in mine.named_buffers():
            assert torch.equal(buffer, dict(other.named_buffers())[name])
    assert scaled >= 3 * 2


# --- random ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["small_cnn", "resnet8"])
def test_random_members_are_slices_of_one_base(network: str) -> None:
    ensemble = fitted(RandomEnsemble, spec(network), seed=2)
    base = ensemble.draw(2)
    for member, kept in zip(ensemble.members, ensemble.record.channels, strict=True):
        expected = sliced(base, ensemble.record.groups, kept)
        assert all(torch.equal(value, expected[name]) for name, value in member.state_dict().items())


def test_random_channels_differ_by_member_and_by_seed_and_by_nothing_else() -> None:
    drawn = [fitted(RandomEnsemble, spec("small_cnn"), None, seed).record.channels for seed in (2, 2, 3)]
    first, again, other = ([tuple(kept[name].tolist()) for kept in one for name in kept] for one in drawn)
    assert first == again
    assert len(set(first)) == len(first)  # three members, three groups
    assert not set(first) & set(other)


def test_random_channels_are_spread_over_the_layer() -> None:
    ensembles = [fitted(RandomEnsemble, spec("small_cnn"), None, seed) for seed in range(8)]
    name = ensembles[0].record.groups[-1].name
    seen = torch.cat([kept[name] for one in ensembles for kept in one.record.channels]).bincount(minlength=96)
    # 24 members keep half of the channels each: binomial around 12, deviation 2.4.
    assert seen.min() > 0
    assert seen.max() < 24


# --- shuffled -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["small_cnn", "resnet8"])
def test_shuffled_has_the_widths_of_structured_and_other_channels(network: str) -> None:
    structured, shuffled = (fitted(kind, spec(network), seed=1) for kind in (StructuredEnsemble, ShuffledEnsemble))
    pairs = list(zip(structured.record.channels, shuffled.record.channels, strict=True))
    for mine, other in pairs:
        assert {name: len(kept) for name, kept in mine.items()} == {name: len(kept) for name, kept in other.items()}
        assert all(bool((kept.diff() > 0).all()) for kept in other.values())
    same = [torch.equal(mine[name], other[name]) for mine, other in pairs for name in mine]
    assert sum(same) < len(same) / 2  # chance may hit one of a narrow group
    assert structured.size().parameters == shuffled.size().parameters
    shares = [len(kept[g.name]) / g.channels for kept in structured.record.channels for g in structured.record.groups]
    assert max(shares) - min(shares) > 0.05  # else the widths would have been uniform and nothing shown
    assert shuffled.training_flops == structured.training_flops > 0


def test_shuffled_channels_differ_by_member_and_by_seed() -> None:
    drawn = [fitted(ShuffledEnsemble, spec("small_cnn"), seed=seed).record for seed in (1, 2)]
    last = drawn[0].groups[-1].name
    kept = [tuple(member[last].tolist()) for record in drawn for member in record.channels]
    assert len(set(kept)) == 6


# --- magnitude ------------------------------------------------------------------------------------------------------


def norms(network: torch.nn.Module, group: Group) -> list[float]:
    """Of every channel, by the book: all weights of all layers that make it."""
    found = []
    for channel in range(group.channels):
        total = 0.0
        for cut in group.cuts:
            layer = network.get_submodule(cut.module)
            if cut.side is Side.OUT and isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                for row in range(cut.repeat):
                    total += float(
                        layer.weight.detach()[cut.offset + channel * cut.repeat + row].double().square().sum()
                    )
        found.append(math.sqrt(total))
    return found


@pytest.mark.parametrize("network", SHAPES)
def test_magnitude_keeps_the_largest_of_its_own_network(network: str) -> None:
    ensemble = fitted(MagnitudeEnsemble, spec(network), "0.5x", seed=3)
    record = ensemble.record
    for member, kept in enumerate(record.channels):
        own = ensemble.draw(3, member)
        for group in record.groups:
            largest = torch.tensor(norms(own, group)).argsort(descending=True)[: len(kept[group.name])]
            assert kept[group.name].tolist() == sorted(largest.tolist())
            assert len(kept[group.name]) < group.channels
        expected = sliced(own, record.groups, kept)
        assert all(torch.equal(value, expected[name]) for name, value in ensemble.members[member].state_dict().items())


def test_channels_that_many_layers_make_count_all_of_them() -> None:
    groups = found(spec("resnet8")).groups
    network = SingleNetwork(spec("resnet8")).draw(0)
    coupled = [
        group
        for group in groups
        if sum(c.side is Side.OUT and isinstance(network.get_submodule(c.module), torch.nn.Conv2d) for c in group.cuts)
        > 1
    ]
    assert coupled  # the residual stream
    alone = torch.tensor(norms(network, replace(coupled[0], cuts=coupled[0].cuts[:1])))
    together = torch.tensor(norms(network, coupled[0]))
    assert alone.argsort().tolist() != together.argsort().tolist()  # the first layer alone would choose otherwise
