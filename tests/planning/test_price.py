from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from structured_ensembles import networks
from structured_ensembles.artefact import file as artefact
from structured_ensembles.artefact.file import Record
from structured_ensembles.channels import topology
from structured_ensembles.channels.extraction import extract
from structured_ensembles.errors import BudgetError, NetworkError, SettingsError
from structured_ensembles.networks import sizes
from structured_ensembles.options.budget import Budget, Unit
from structured_ensembles.options.choices import Combine, Rule
from structured_ensembles.options.selection import SelectionSettings
from structured_ensembles.planning.price import Price
from structured_ensembles.scores.selection import keep_within, order

if TYPE_CHECKING:
    from pathlib import Path

    from structured_ensembles.types import Channels

SHAPE = (1, 8, 8)
EXAMPLE = torch.zeros(1, *SHAPE)
SPEC = networks.NetworkSpec("small_cnn", SHAPE, 4)
BASE = networks.build(SPEC)
FOUND = topology.find(BASE, torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)))
RECORD = Record("structured", 1, ("a", "b", "c", "d"), SHAPE, Combine.PROBABILITIES, SPEC)


def price(budget: Budget | None, members: int = 3) -> Price:
    return Price(BASE, FOUND, RECORD, members, budget)


def a_budget_in(unit: Unit) -> Budget:
    return Budget(1, unit, relative=True)


def file_size(folder: Path, members: list[nn.Module], channels: list[Channels]) -> int:
    """Of the file that is really written."""
    path = folder / "ensemble.safetensors"
    path.unlink(missing_ok=True)
    groups = FOUND.groups if channels else ()
    method = "structured" if channels else "single"
    record = replace(RECORD, method=method, members=len(members), groups=groups, channels=tuple(channels))
    artefact.write(path, [member.state_dict() for member in members], record)
    return path.stat().st_size


def true_cost(unit: Unit, folder: Path, channels: list[Channels]) -> int:
    """Of members that are extracted for real."""
    members = [extract(BASE, FOUND.groups, kept) for kept in channels]
    if unit is Unit.BYTES:
        return file_size(folder, members, channels)
    count = sizes.parameters if unit is Unit.PARAMETERS else lambda member: sizes.flops(member, EXAMPLE)
    return sum(count(member) for member in members)


@st.composite
def ensembles(draw: st.DrawFn) -> list[Channels]:
    return [
        {
            name: torch.tensor(sorted(draw(st.sets(st.integers(0, width - 1), min_size=1))))
            for name, width in FOUND.widths.items()
        }
        for _ in range(draw(st.integers(1, 3)))
    ]


# --- against what is really extracted and written -------------------------------------------------------------------


@pytest.mark.parametrize("unit", Unit)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ensembles())
def test_members_cost_what_they_do_when_they_are_extracted_and_written(tmp_path, unit, channels):
    assert price(a_budget_in(unit), len(channels)).of(channels) == true_cost(unit, tmp_path, channels)


@pytest.mark.parametrize("unit", Unit)
def test_what_whole_members_and_the_smallest_ones_cost(tmp_path, unit):
    for width in (1, 1000):
        channels = [{name: torch.arange(min(width, c)) for name, c in FOUND.widths.items()}] * 2
        assert price(a_budget_in(unit), 2).of(channels) == true_cost(unit, tmp_path, channels)


@pytest.mark.parametrize("unit", Unit)
def test_the_dense_network_costs_what_it_does_as_a_file_of_its_own(tmp_path, unit):
    own = {Unit.PARAMETERS: sizes.parameters(BASE), Unit.FLOPS: sizes.flops(BASE, EXAMPLE)}
    own[Unit.BYTES] = file_size(tmp_path, [BASE], [])
    made = price(Budget(2.5, unit, relative=True))
    assert made.dense == own[unit]
    assert made.limit == 5 * own[unit] // 2
    assert price(Budget(1234.5, unit)).limit == 1234


@pytest.mark.parametrize("unit", [Unit.PARAMETERS, Unit.FLOPS])
def test_a_channel_saves_what_the_members_without_it_lack(tmp_path, unit):
    whole = true_cost(unit, tmp_path, [FOUND.whole])
    for name, saved in price(a_budget_in(unit)).savings.items():
        for channel in (0, 5):
            kept = torch.tensor([c for c in range(FOUND.widths[name]) if c != channel])
            assert saved == whole - true_cost(unit, tmp_path, [{**FOUND.whole, name: kept}])


def test_a_channel_saves_the_bytes_of_its_tensors():
    first, second, last = FOUND.widths.values()
    convolution, norm = 4 * 9, 4 * 4  # bytes of a 3x3 kernel, and of weight, bias, mean and variance
    biases = [4 * (module.bias is not None) for module in BASE.modules() if isinstance(module, nn.Conv2d)]
    assert list(price(None).savings.values()) == [
        convolution * 1 + biases[0] + norm + convolution * second,
        convolution * first + biases[1] + norm + convolution * last,
        convolution * second + biases[2] + norm + 4 * 4,
    ]


def test_shares_grow_with_the_root_of_the_operations_that_a_byte_does():
    made = price(None)
    operations = price(a_budget_in(Unit.FLOPS)).savings
    worth = [operations[name] / saved for name, saved in made.savings.items()]
    assert list(made.shares.values()) == pytest.approx([(one / max(worth)) ** 0.5 for one in worth])
    assert made.weights(Rule.TAPERED) is made.shares
    assert made.weights(Rule.PER_COST) is made.savings


def test_where_the_budget_is_of_operations_shares_are_equal():
    assert set(price(a_budget_in(Unit.FLOPS)).shares.values()) == {1.0}


def test_where_operations_cannot_be_counted_shares_are_equal(monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setitem(sizes.COUNTED, "flops", fail)
    assert set(price(None).shares.values()) == {1.0}


@pytest.mark.parametrize("unit", Unit)
def test_a_budget_is_met_as_closely_as_one_more_channel_allows(tmp_path, unit):
    made = price(Budget(1, unit, relative=True), members=4)
    generator = torch.Generator().manual_seed(0)
    importance = {name: torch.rand(4, width, generator=generator) for name, width in FOUND.widths.items()}
    keys = order(importance, SelectionSettings(rule=Rule.PER_COST), made.savings)
    kept = keep_within(keys, made.of, made.limit)
    spent = true_cost(unit, tmp_path, kept)
    assert made.limit - max(made.savings.values()) - 16 < spent <= made.limit  # 16: the header's padding and digits


# --- before any long work -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("round_to", [1, 4])
def test_an_impossible_budget_names_the_smallest_possible_one_and_its_unit(tmp_path, unit, round_to):
    smallest = true_cost(unit, tmp_path, [{name: torch.arange(round_to) for name in FOUND.widths}] * 3)
    price(Budget(smallest, unit)).check(round_to)
    message = f"a budget of {smallest - 1:,} {unit} is impossible for 3 members .* costs {smallest:,}. Allow at least"
    with pytest.raises(BudgetError, match=message):
        price(Budget(smallest - 1, unit)).check(round_to)


def test_no_budget_is_never_impossible_and_has_no_limit():
    price(None).check()
    with pytest.raises(SettingsError, match="there is no budget"):
        _ = price(None).limit


class Deciding(nn.Module):
    """Looks at values: nothing can be known of it without running it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        return self.last(x if float(x.sum()) > 1e9 else x.relu())


def test_a_network_whose_operations_cannot_be_counted_is_refused():
    network = Deciding()
    found = topology.find(network, torch.randn(2, *SHAPE))
    unknown = replace(RECORD, network=None)
    with pytest.raises(NetworkError, match=r"operations of Deciding cannot be counted .*budget in bytes or parameters"):
        Price(network, found, unknown, 2, a_budget_in(Unit.FLOPS)).check()
    Price(network, found, unknown, 2, a_budget_in(Unit.PARAMETERS)).check()


def test_a_double_precision_network_has_its_own_costs():
    network = networks.build(SPEC).double()
    one, two = (Price(base, FOUND, RECORD, 1, None).savings for base in (BASE, network))
    assert two == {name: 2 * saved for name, saved in one.items()}
    in_flops = Price(network, FOUND, RECORD, 1, a_budget_in(Unit.FLOPS), torch.float64)
    assert in_flops.dense == price(a_budget_in(Unit.FLOPS)).dense


# --- what it leaves alone -------------------------------------------------------------------------------------------


def test_the_base_keeps_its_memory_and_each_size_is_measured_once(monkeypatch):
    made = price(a_budget_in(Unit.PARAMETERS))
    calls, count = [], sizes.parameters
    monkeypatch.setattr(sizes, "parameters", lambda network: calls.append(network) or count(network))
    first, second = ([{name: torch.tensor([at]) for name in FOUND.widths}] * 3 for at in (0, 1))
    assert made.of(first) == made.of(second)
    assert len(calls) == 3
    assert all(tensor.is_meta for network in calls for tensor in network.state_dict().values())
    assert not any(tensor.is_meta for tensor in BASE.state_dict().values())
