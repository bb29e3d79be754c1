from __future__ import annotations

import copy
import functools
import gc
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from structured_ensembles.channels import topology
from structured_ensembles.data.batches import loader
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import Placement, Reduce
from structured_ensembles.progress import quiet
from structured_ensembles.scores import ranking
from structured_ensembles.scores.ranking import rank

if TYPE_CHECKING:
    from structured_ensembles.types import Importance

MEMBERS = 3


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def make(*, dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = [
            nn.Conv2d(1, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.Conv2d(5, 4, 3),
            nn.ReLU(),
            nn.Flatten(),
        ]
        return nn.Sequential(*body, nn.Linear(16, 6), nn.Dropout(dropout), nn.Tanh(), nn.Linear(6, 3)).double()


GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(30, 1, 4, 4, generator=GENERATOR, dtype=torch.float64)
DATA = TensorDataset(IMAGES, torch.randint(3, (30,), generator=GENERATOR))
FOUND = topology.find(make(), IMAGES)
SCORES = {
    name: torch.randn(MEMBERS, width, generator=GENERATOR, dtype=torch.float64) for name, width in FOUND.widths.items()
}


def run(network: nn.Module | None = None, reduce: Reduce = Reduce.MEAN, batch: int = 7, **options) -> Importance:
    settings = {"placement": Placement.AFTER_NORM, "scores": SCORES, "batches": loader(DATA, batch, seed=3), **options}
    return rank(network or make(), FOUND, reduce=reduce, **settings)


# --- against a slow, obvious loop -----------------------------------------------------------------------------------


@functools.cache
def member_gradients(placement: Placement, member: int, group: str) -> list[list[float]]:
    """By batch, |dL/ds| of one member's one layer."""
    return [member_gradient(placement, member, group, *batch) for batch in loader(DATA, 7, seed=3)]


def member_gradient(placement: Placement, member: int, group: str, inputs: Tensor, labels: Tensor) -> list[float]:
    """|dL/ds| of one member's one layer on one batch, by a graph and a backward pass of its own."""
    scores = {name: values.clone() for name, values in SCORES.items()}
    wanted = SCORES[group][member].clone().requires_grad_()
    sites = {int(group.scaled[placement][0].module): group.name for group in FOUND.groups}
    x = torch.cat([inputs] * MEMBERS)  # the members share the batch statistics
    for position, module in enumerate(make().train()):
        x = module(x)
        if name := sites.get(position):
            factors = [wanted if (m, name) == (member, group) else scores[name][m] for m in range(MEMBERS)]
            parts = x.chunk(MEMBERS)
            x = torch.cat([part * f.view(-1, *[1] * (x.dim() - 2)) for part, f in zip(parts, factors, strict=True)])
    loss = cross_entropy(sum(x.chunk(MEMBERS)) / MEMBERS, labels)
    return torch.autograd.grad(loss, wanted)[0].abs().tolist()


SLOW_REDUCE = {
    Reduce.MEAN: lambda values: sum(values) / len(values),
    Reduce.MEDIAN: lambda values: sorted(values)[(len(values) - 1) // 2],
    Reduce.MAX: max,
}


@pytest.mark.parametrize("reduce", Reduce)
@pytest.mark.parametrize("placement", Placement)
def test_all_importances_equal_a_loop_over_members_and_layers(placement, reduce):
    found = run(make().eval(), reduce=reduce, placement=placement)
    assert {name: tuple(value.shape) for name, value in found.items()} == {"0": (3, 5), "3": (3, 4), "6": (3, 6)}
    for name, values in found.items():
        for member in range(MEMBERS):
            each = member_gradients(placement, member, name)
            slow = [SLOW_REDUCE[reduce](channel) for channel in zip(*each, strict=True)]
            assert values[member].tolist() == pytest.approx(slow, rel=1e-6, abs=1e-12)


def test_there_is_one_backward_pass_per_batch(monkeypatch):
    calls, original = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **rest: calls.append(0) or original(*args, **rest))
    run()
    assert len(calls) == 5


# --- what it leaves alone -------------------------------------------------------------------------------------------


def test_the_network_and_the_scores_come_out_bit_identical():
    network = make(dropout=0.5)
    network[6].eval()
    before, scores = copy.deepcopy(network), copy.deepcopy(SCORES)
    state = torch.get_rng_state()
    run(network)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert [module.training for module in network.modules()] == [module.training for module in before.modules()]
    assert all(torch.equal(SCORES[name], value) and not SCORES[name].requires_grad for name, value in scores.items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_gives_the_same_bits_and_another_one_others():
    first, second, other = (run(make(dropout=0.5), seed=seed) for seed in (0, 0, 1))
    for name, values in first.items():
        assert torch.equal(values, second[name])
        assert not torch.equal(values, other[name])


class Skipping(nn.Module):
    """Leaves its second layer out while it is trained, as stochastic depth may."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(16, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)).tanh()
        return self.last(x if self.training else self.second(x).tanh())


def test_a_layer_that_no_pass_runs_has_importance_zero():
    network = Skipping().double()
    found = topology.find(network, IMAGES)
    scores = {name: torch.ones(2, width).double() for name, width in found.widths.items()}
    importance = rank(network, found, loader(DATA, 10, seed=0), scores, Placement.AFTER_NORM)
    assert (importance["second"] == 0).all()
    assert importance["first"].any()


def test_importances_that_are_no_numbers_are_refused():
    scores = {**SCORES, "3": torch.full_like(SCORES["3"], float("inf"))}
    with pytest.raises(SettingsError, match=r"\d+ of 45 importances are infinite or NaN.*smaller search learning rate"):
        run(scores=scores)


# --- memory ---------------------------------------------------------------------------------------------------------


class Weighed:
    """Batches; before each, the elements of every tensor that came to life since and is still alive are counted."""

    def __init__(self, count: int) -> None:
        self.alive: list[int] = []
        self.count = count

    def __iter__(self):
        for _ in range(self.count):
            gc.collect()
            self.alive.append(sum(thing.numel() for thing in gc.get_objects() if isinstance_of_tensor(thing)))
            yield IMAGES[:8].clone(), torch.zeros(8, dtype=torch.int64)


def isinstance_of_tensor(thing: object) -> bool:
    return issubclass(type(thing), Tensor)  # `isinstance` asks proxies, and some answer with a warning


@pytest.mark.parametrize("reduce", Reduce)
def test_memory_does_not_grow_with_the_number_of_batches(reduce, monkeypatch):
    monkeypatch.setattr(ranking, "MEDIAN_BATCHES", 4)
    batches = Weighed(30)
    gc.freeze()  # what is there already takes long to look through
    run(reduce=reduce, batches=batches)
    gc.unfreeze()
    assert batches.alive[0] > 0
    assert set(batches.alive[6:]) == {max(batches.alive[:6])}


# --- the median's reservoir -----------------------------------------------------------------------------------------


def test_the_median_is_exact_up_to_its_limit():
    values = torch.randn(ranking.MEDIAN_BATCHES, 1, 3, generator=GENERATOR)
    median = ranking._Median(0)
    for value in values:
        median.add(value)
    torch.testing.assert_close(median.result(), values.quantile(0.5, dim=0, interpolation="lower"))


def test_beyond_it_each_batch_is_kept_equally_often(monkeypatch):
    monkeypatch.setattr(ranking, "MEDIAN_BATCHES", 5)
    batches, runs, kept = 20, 800, torch.zeros(20)
    for seed in range(runs):
        median = ranking._Median(seed)
        for batch in range(batches):
            median.add(torch.tensor(batch))
        assert len({int(value) for value in median.kept}) == 5
        kept[torch.stack(median.kept)] += 1
    expected, deviation = runs * 5 / batches, (runs * 0.25 * 0.75) ** 0.5
    assert (kept - expected).abs().max() < 4.5 * deviation


def test_a_limit_of_batches_passes_only_the_first_ones() -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    found = topology.find(network, torch.rand(2, 4))
    dataset = TensorDataset(torch.rand(50, 4), torch.arange(50) % 3)
    scores = {name: torch.rand(2, width) for name, width in found.widths.items()}
    batches = loader(dataset, 10, 0, shuffle=False)
    first = loader(TensorDataset(*dataset[:20]), 10, 0, shuffle=False)
    limited = rank(network, found, batches, scores, Placement.AFTER_NORM, max_batches=2)
    expected = rank(network, found, first, scores, Placement.AFTER_NORM)
    assert all(torch.equal(limited[name], expected[name]) for name in expected)
