from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from structured_ensembles.errors import BudgetError, SettingsError
from structured_ensembles.options.choices import Rule
from structured_ensembles.options.selection import SelectionSettings
from structured_ensembles.scores.selection import fewest, impossible, keep_share, keep_within, order, savings
from structured_ensembles.types import Channels, Group, Importance, Topology

NO_SAVINGS: dict[str, float] = {}


@st.composite
def importances(draw: st.DrawFn, *, ties: bool = False, most: int = 9) -> Importance:
    """Importances of 1 to 3 members over 1 to 3 groups of 1 to 9 channels."""
    members = draw(st.integers(1, 3))
    widths = draw(st.lists(st.integers(1, most), min_size=1, max_size=3))
    total = members * sum(widths)
    if ties:
        values = draw(st.lists(st.integers(0, 3), min_size=total, max_size=total))
    else:
        values = draw(st.permutations(range(total)))
    rows = (torch.tensor(values, dtype=torch.float64) / 7).reshape(members, -1)
    return {f"g{index}": part for index, part in enumerate(rows.split(widths, dim=1))}


KEEPS = st.integers(1, 1000).map(lambda thousandths: thousandths / 1000)


def keys(importance: Importance, rule: Rule, saved: dict[str, float] = NO_SAVINGS, *, normalise: bool = False):
    return order(importance, SelectionSettings(rule=rule, normalise=normalise), saved)


def kept(members: list[Channels]) -> list[dict[str, list[int]]]:
    return [{name: index.tolist() for name, index in member.items()} for member in members]


def count(members: list[Channels]) -> int:
    return sum(len(index) for member in members for index in member.values())


# --- a share --------------------------------------------------------------------------------------------------------


def at_or_above(values: Tensor, pool: Tensor, keep: float) -> list[int]:
    """The published comparison; its fallback keeps the best channel of a group that would be empty."""
    chosen = (values >= torch.quantile(pool, 1 - keep) - 1e-9).nonzero().flatten().tolist()
    return chosen or [int(values.argmax())]


@given(importances(), KEEPS)
def test_global_is_the_published_comparison_with_the_quantile_of_all_channels(importance, keep):
    for member, channels in enumerate(kept(keep_share(keys(importance, Rule.GLOBAL), keep))):
        pool = torch.cat([value[member] for value in importance.values()])
        assert channels == {name: at_or_above(value[member], pool, keep) for name, value in importance.items()}


@given(importances(), KEEPS)
def test_local_is_the_published_comparison_within_each_group(importance, keep):
    for member, channels in enumerate(kept(keep_share(keys(importance, Rule.LOCAL), keep))):
        expected = {name: at_or_above(value[member], value[member], keep) for name, value in importance.items()}
        assert channels == expected


@given(importances(ties=True), st.sampled_from([Rule.GLOBAL, Rule.LOCAL]), KEEPS, KEEPS, st.integers(1, 4))
def test_more_is_a_superset_of_less_and_no_group_is_ever_empty(importance, rule, one, two, round_to):
    places = keys(importance, rule)
    less, more = (kept(keep_share(places, keep, round_to)) for keep in sorted((one, two)))
    for small, large in zip(less, more, strict=True):
        for name, index in small.items():
            assert index
            assert index == sorted(set(index))
            assert set(index) <= set(large[name])


@given(importances(ties=True), st.sampled_from([Rule.GLOBAL, Rule.LOCAL]), KEEPS, st.integers(1, 4))
def test_widths_are_rounded_up_to_multiples_as_far_as_there_are_channels(importance, rule, keep, round_to):
    places = keys(importance, rule)
    for exact, rounded in zip(keep_share(places, keep), keep_share(places, keep, round_to), strict=True):
        for name, index in exact.items():
            up = next(width for width in itertools.count(len(index)) if width % round_to == 0)
            assert len(rounded[name]) == min(up, importance[name].shape[1])


@given(importances(ties=True), st.sampled_from([Rule.GLOBAL, Rule.LOCAL]))
def test_keeping_everything_keeps_everything(importance, rule):
    whole = {name: list(range(value.shape[1])) for name, value in importance.items()}
    assert all(member == whole for member in kept(keep_share(keys(importance, rule), 1.0)))


def test_a_share_may_be_one_minus_what_is_pruned():
    descending = {"a": torch.arange(11.0).flip(0)[None]}
    assert 1 - 0.9 < 0.1
    assert kept(keep_share(keys(descending, Rule.GLOBAL), 1 - 0.9)) == [{"a": [0, 1]}]


def test_of_equal_channels_the_first_are_kept():
    many = {"a": torch.ones(1, 5000)}
    assert kept(keep_share(keys(many, Rule.GLOBAL), 0.5)) == [{"a": list(range(2500))}]
    same = {"a": torch.ones(1, 3), "b": torch.ones(1, 3)}
    assert kept(keep_share(keys(same, Rule.GLOBAL), 0.61)) == [{"a": [0, 1, 2], "b": [0]}]
    assert kept(keep_share(keys(same, Rule.LOCAL), 0.5)) == [{"a": [0, 1], "b": [0, 1]}]


# --- in what order --------------------------------------------------------------------------------------------------


def test_per_cost_ranks_by_importance_per_what_is_saved():
    importance = {"cheap": torch.tensor([[1.0, 4.0]]), "dear": torch.tensor([[9.0, 50.0]])}
    places = keys(importance, Rule.PER_COST, {"cheap": 1.0, "dear": 10.0})  # 1, 4, 0.9 and 5 per byte
    assert {name: value.tolist() for name, value in places.items()} == {
        "cheap": [[pytest.approx(2 / 3), pytest.approx(1 / 3)]],
        "dear": [[1, 0]],
    }


@given(importances(ties=True))
def test_per_cost_at_one_price_is_global(importance):
    priced = keys(importance, Rule.PER_COST, dict.fromkeys(importance, 3.0))
    assert all(torch.equal(value, priced[name]) for name, value in keys(importance, Rule.GLOBAL).items())


@given(importances(ties=True), KEEPS)
def test_tapered_at_one_weight_keeps_the_same_share_of_every_group(importance, keep):
    for member in keep_share(keys(importance, Rule.TAPERED, dict.fromkeys(importance, 0.3)), keep):
        shares = [len(index) / importance[name].shape[1] for name, index in member.items()]
        coarsest = max(1 / value.shape[1] for value in importance.values())
        assert max(shares) - min(shares) <= coarsest + 1e-9


def test_tapered_keeps_shares_in_proportion_to_the_weights():
    generator = torch.Generator().manual_seed(0)
    importance = {name: torch.rand(2, 100, generator=generator) for name in ("many", "few")}
    places = keys(importance, Rule.TAPERED, {"many": 1.0, "few": 0.25})
    for channels in (50, 100, 120):
        for number, member in enumerate(keep_share(places, channels / 200)):
            many, few = len(member["many"]), len(member["few"])
            assert many + few == pytest.approx(channels, abs=1)
            assert few == pytest.approx(many / 4, abs=1)
            assert (
                importance["many"][number, member["many"]].min() == importance["many"][number].topk(many).values.min()
            )


@given(importances(), st.lists(st.sampled_from([1e-3, 1.0, 1e3]), min_size=9, max_size=9))
def test_normalised_importances_do_not_depend_on_the_scale_of_a_members_group(importance, drawn):
    scales = torch.tensor(drawn, dtype=torch.float64).reshape(3, 3, 1)
    scaled = {name: v * scales[at, : len(v)] for at, (name, v) in enumerate(importance.items())}
    shares = torch.cat([value / value.mean(1, keepdim=True) for value in importance.values()], dim=1)
    apart = (shares[:, :, None] - shares[:, None, :]).abs() + torch.eye(shares.shape[1])
    assume(bool((apart > 1e-9).all()))
    one, other = (keys(values, Rule.GLOBAL, normalise=True) for values in (importance, scaled))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_group_without_any_importance_can_be_normalised():
    places = keys({"a": torch.zeros(1, 2), "b": torch.tensor([[1.0, 2.0]])}, Rule.GLOBAL, normalise=True)
    assert places["b"].tolist() == [[pytest.approx(1 / 3), 0]]


@given(importances(ties=True), st.sampled_from(Rule))
def test_places_are_an_order_from_zero_to_one(importance, rule):
    places = keys(importance, rule, dict.fromkeys(importance, 1.0))
    for member in range(len(next(iter(places.values())))):
        rows = [value[member].tolist() for value in places.values()]
        for row in rows if rule is Rule.LOCAL else [list(itertools.chain(*rows))]:
            steps = max(1, len(row) - 1)
            assert sorted(row) == pytest.approx([place / steps for place in range(len(row))])


# --- within a limit -------------------------------------------------------------------------------------------------


def cost(members: list[Channels]) -> int:
    """Like parameters of a chain of layers: products of neighbouring widths, and something per channel."""
    total = 0
    for member in members:
        widths = [3, *(len(index) for index in member.values()), 5]
        total += sum(a * b for a, b in itertools.pairwise(widths)) + sum(widths)
    return total


def prefixes(places: dict[str, Tensor], round_to: int) -> list[list[Channels]]:
    """Every prefix of the order in which all members grow together, made without any bisection."""
    members = len(next(iter(places.values())))
    steps = sorted({(float(key), m) for value in places.values() for m in range(members) for key in value[m]})
    made = []
    for length in range(len(steps) + 1):
        ensemble = []
        for m in range(members):
            reached = {key for key, member in steps[:length] if member == m}
            member_kept = {}
            for name, value in places.items():
                wanted = max(1, sum(float(key) in reached for key in value[m]))
                wanted = min(value.shape[1], (wanted + round_to - 1) // round_to * round_to)
                best = sorted(range(value.shape[1]), key=lambda channel: float(value[m][channel]))[:wanted]
                member_kept[name] = torch.tensor(sorted(best))
            ensemble.append(member_kept)
        made.append(ensemble)
    return made


RULES = st.sampled_from(list(Rule))


@settings(max_examples=60)
@given(importances(ties=True, most=6), RULES, st.floats(0, 1), st.integers(1, 3))
def test_the_longest_prefix_that_fits_is_kept(importance, rule, share, round_to):
    places = keys(importance, rule, {name: 1.0 + index for index, name in enumerate(importance)})
    every = prefixes(places, round_to)
    sizes = [cost(ensemble) for ensemble in every]
    assert sizes == sorted(sizes)
    limit = round(sizes[0] + share * (sizes[-1] - sizes[0]))
    best = max(index for index, size in enumerate(sizes) if size <= limit)
    assert kept(keep_within(places, cost, limit, round_to)) == kept(every[best])


@settings(max_examples=40)
@given(importances(most=6), RULES, st.integers(0, 60), st.integers(0, 60))
def test_a_larger_limit_keeps_a_superset(importance, rule, one, two):
    places = keys(importance, rule, dict.fromkeys(importance, 1.0))
    smallest = cost(prefixes(places, 1)[0])
    less, more = (keep_within(places, cost, smallest + extra) for extra in sorted((one, two)))
    for small, large in zip(kept(less), kept(more), strict=True):
        assert all(set(index) <= set(large[name]) for name, index in small.items())


def test_members_grow_in_turn():
    places = {"a": torch.tensor([[0.0, 0.5, 1.0]] * 3)}
    sizes = [[len(m["a"]) for m in keep_within(places, count, limit)] for limit in range(3, 10)]
    assert sizes == [[1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 2, 2], [3, 2, 2], [3, 3, 2], [3, 3, 3]]


def test_a_wide_search_measures_few_sizes():
    calls = []
    places = {"a": torch.linspace(0, 1, 5000).double().repeat(4, 1)}
    keep_within(places, lambda members: calls.append(0) or count(members), 9999)
    assert len(calls) <= 1 + 15  # log2 of 20,000


def test_an_impossible_limit_names_the_smallest_possible_one():
    places = {"a": torch.tensor([[0.0, 0.5, 1.0]] * 2), "b": torch.tensor([[0.0, 0.5, 1.0]] * 2)}
    message = r"a budget of 3 is impossible for 2 members of this network: .* costs 4\. Allow at least that"
    with pytest.raises(BudgetError, match=message):
        keep_within(places, count, 3)
    assert count(keep_within(places, count, 4)) == 4
    with pytest.raises(BudgetError, match=r"costs 8\."):
        keep_within(places, count, 7, round_to=2)
    assert "budget of 1,000 bytes is impossible for 1 member of" in str(impossible(1000, 2000, 1, "bytes"))


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 9), min_size=1), st.integers(1, 12))
def test_the_fewest_channels_are_those_of_the_empty_prefix(widths, round_to):
    places = {name: torch.linspace(0, 1, width).double()[None] for name, width in widths.items()}
    smallest = prefixes(places, round_to)[0][0]
    assert {n: len(index) for n, index in fewest(widths, round_to).items()} == {n: len(i) for n, i in smallest.items()}


# --- settings and prices --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_outside_its_limits_is_refused(keep):
    with pytest.raises(SettingsError, match=rf"keep {keep} is outside \(0, 1\]: 0.5 keeps half"):
        SelectionSettings(keep=keep)


def test_rounding_to_nothing_is_refused():
    with pytest.raises(SettingsError, match="round_to 0 must be at least 1"):
        SelectionSettings(round_to=0)


def test_what_a_channel_saves_is_the_difference_that_its_removal_makes():
    groups = [Group(name, width, (), private=True) for name, width in (("a", 4), ("b", 6))]
    whole = {group.name: group.channels for group in groups}

    def size(channels: Channels) -> int:
        a, b = ({**whole, **{name: len(index) for name, index in channels.items()}}[name] for name in "ab")
        return 3 * a + a * b + 5 * b

    assert savings(Topology(tuple(groups), 5), size) == {"a": 3 + 6, "b": 4 + 5}


def test_a_rule_may_be_given_by_its_name_and_a_wrong_name_is_refused():
    assert SelectionSettings(rule="local").rule is Rule.LOCAL
    with pytest.raises(SettingsError, match="unknown rule 'globel': did you mean 'global'"):
        SelectionSettings(rule="globel")
