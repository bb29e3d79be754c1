from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, TensorDataset

from structured_ensembles.channels import topology
from structured_ensembles.data.batches import loader
from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.options.choices import Parametrisation, Placement
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.progress import quiet
from structured_ensembles.scores import diversity
from structured_ensembles.scores.scaling import Scaler
from structured_ensembles.scores.search import Found, assign, check_rows, forward_members, search

MEMBERS = 3


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def make(norm: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = [nn.Conv2d(1, 5, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*body, nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3)).double()


NETWORKS = {
    "without": lambda: make(nn.Identity()),
    "norm": lambda: make(nn.BatchNorm2d(5)),
    "averaged norm": lambda: make(nn.BatchNorm2d(5, momentum=None)),
}
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(22, 1, 4, 4, generator=GENERATOR, dtype=torch.float64)
DATA = TensorDataset(IMAGES, torch.randint(3, (22,), generator=GENERATOR))
FOUND = {name: topology.find(build(), IMAGES) for name, build in NETWORKS.items()}


def run(
    name: str = "norm",
    network: nn.Module | None = None,
    seed: int = 0,
    batch: int = 8,
    members: int = MEMBERS,
    **options,
) -> Found:
    settings = SearchSettings(batch_size=batch, **{"learning_rate": 0.01, "max_steps": 4, **options})
    network = network or NETWORKS[name]()
    return search(network, FOUND[name], loader(DATA, batch, seed=5), members, settings, seed)


def starts() -> dict[str, Tensor]:
    return {name: scores.double() for name, scores in run(max_steps=0).scores.items()}


def by_hand(name: str, placement: Placement, scores: dict[str, Tensor], member: list[int], x: Tensor) -> Tensor:
    """The logits in training mode, every row multiplied on its own."""
    sites = {int(group.scaled[placement][0].module): group.name for group in FOUND[name].groups}
    for position, module in enumerate(NETWORKS[name]().train()):
        x = module(x)
        if group := sites.get(position):
            rows = [
                row * scores[group][own].view(-1, *[1] * (row.dim() - 1)) for row, own in zip(x, member, strict=True)
            ]
            x = torch.stack(rows)
    return x


# --- who sees what --------------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 20))
def test_example_i_of_b_goes_to_member_floor_of_i_times_m_over_b(batch, members):
    given_to = assign(batch, members).tolist()
    assert given_to == [i * members // batch for i in range(batch)]
    shares = [given_to.count(member) for member in range(members)]
    assert max(shares) - min(shares) <= 1
    assert given_to == sorted(given_to)


class Watched(Dataset):
    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.asked.append(index)
        return DATA[index]


@pytest.mark.parametrize(("steps", "asked"), [(None, 3 * 22), (4, 22 + 8), (3, 22), (1, 8), (0, 0)])
def test_every_epoch_sees_each_example_once_in_another_order_and_nothing_more_is_read(steps, asked):
    data = Watched()
    settings = SearchSettings(epochs=3, max_steps=steps, batch_size=8)
    found = search(NETWORKS["norm"](), FOUND["norm"], loader(data, 8, seed=1), MEMBERS, settings, seed=0)
    assert len(data.asked) == asked
    assert len(found.losses) == (9 if steps is None else steps)
    epochs = [data.asked[start : start + 22] for start in range(0, asked, 22)]
    assert all(sorted(epoch) == list(range(22)) for epoch in epochs if len(epoch) == 22)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


# --- one step against a slow, obvious loop --------------------------------------------------------------------------


@pytest.mark.parametrize("placement", Placement)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [2, 8])  # fewer examples than members, and a number that they do not divide
def test_the_first_loss_and_the_first_step_are_those_of_a_loop_over_examples(name, placement, batch):
    weights = {"cosine": 0.3, "overlap": 0.1}
    found = run(name, NETWORKS[name]().eval(), batch=batch, max_steps=1, placement=placement, diversity=weights)
    inputs, labels = next(iter(loader(DATA, batch, seed=5)))
    leaves = {group: value.requires_grad_() for group, value in starts().items()}
    member = [i * MEMBERS // batch for i in range(batch)]
    logits = by_hand(name, placement, leaves, member, inputs)
    loss = sum(cross_entropy(logits[i], labels[i]) for i in range(batch)) / batch
    assert found.losses == pytest.approx([loss.item()], rel=1e-6)
    penalty = diversity.penalty(weights, diversity.Observation(leaves))
    gradients = torch.autograd.grad(loss + penalty, list(leaves.values()))
    for (group, leaf), gradient in zip(leaves.items(), gradients, strict=True):
        assert_adam_step(found.scores[group], leaf, gradient)


def assert_adam_step(after: Tensor, before: Tensor, gradient: Tensor) -> None:
    """Adam's first step is the learning rate times g / (|g| + eps)."""
    certain = gradient.abs() > 1e-5
    assert certain.any()
    expected = before - 0.01 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(after.double()[certain], expected.detach()[certain], rtol=0, atol=1e-5)


def test_a_term_on_predictions_sees_every_member_on_every_example():
    found = run("without", max_steps=1, diversity={"output": 5.0})
    inputs, labels = next(iter(loader(DATA, 8, seed=5)))
    leaves = {group: value.requires_grad_() for group, value in starts().items()}
    alone = [by_hand("without", Placement.AFTER_NORM, leaves, [m] * 8, inputs) for m in range(MEMBERS)]
    every = torch.stack(alone)
    fit = cross_entropy(torch.stack([every[i * MEMBERS // 8, i] for i in range(8)]), labels)
    assert found.losses == pytest.approx([fit.item()], rel=1e-6)
    observed = diversity.Observation(leaves, None, every)
    gradients = torch.autograd.grad(fit + diversity.penalty({"output": 5.0}, observed), list(leaves.values()))
    for (group, leaf), gradient in zip(leaves.items(), gradients, strict=True):
        assert_adam_step(found.scores[group], leaf, gradient)


def test_a_term_on_distributions_gets_them():
    options = {"parametrisation": Parametrisation.BETA, "max_steps": 2}
    assert run(diversity={"kl": 1.0}, **options).losses[1] != run(**options).losses[1]


def test_all_members_on_a_batch_in_one_pass():
    class Logits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = (x[:, 0].tolist(), scaler.member.tolist())
            return torch.stack([x[:, 0], scaler.member.double()], dim=1)

    network, scaler = Logits(), Scaler()
    logits = forward_members(network, scaler, {"a": torch.ones(3, 4)}, torch.tensor([[5.0], [7.0]]).double())
    assert logits.tolist() == [[[5, m], [7, m]] for m in range(3)]
    assert network.seen == ([5, 7, 5, 7, 5, 7], [0, 0, 1, 1, 2, 2])


# --- what it leaves alone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_comes_out_bit_identical_and_without_gradients(name):
    network = NETWORKS[name]()
    network[6].eval()
    before, state = copy.deepcopy(network), torch.get_rng_state()
    run(name, network)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert [module.training for module in network.modules()] == [module.training for module in before.modules()]
    assert torch.equal(torch.get_rng_state(), state)


def with_dropout() -> nn.Module:
    network = make(nn.BatchNorm2d(5))
    network[2] = nn.Sequential(nn.ReLU(), nn.Dropout())
    return network


@pytest.mark.parametrize("kind", Parametrisation)
def test_the_same_seed_gives_the_same_bits_and_another_one_others(kind):
    found = []
    for seed, noise in [(0, 1), (0, 2), (1, 1)]:
        torch.manual_seed(noise)
        found.append(run(network=with_dropout(), seed=seed, parametrisation=kind))
    first, second, other = found
    assert first.losses == second.losses != other.losses
    for name, scores in first.scores.items():
        assert torch.equal(scores, second.scores[name])
        assert not torch.equal(scores, other.scores[name])


# --- what it finds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Parametrisation)
def test_scores_start_where_the_parametrisation_says_and_move(kind):
    start, found = run(parametrisation=kind, epochs=0), run(parametrisation=kind)
    assert start.losses == ()
    assert {name: tuple(scores.shape) for name, scores in start.scores.items()} == {
        "0": (3, 5),
        "3": (3, 4),
        "6": (3, 6),
    }
    for name, scores in found.scores.items():
        assert not scores.requires_grad
        assert (scores != start.scores[name]).float().mean() > 0.5


def test_the_loss_falls():
    losses = run(members=1, epochs=20, max_steps=None, learning_rate=0.1).losses
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])


@pytest.mark.parametrize("weights", [{}, {"mmd": 0.01, "output": 1.0}])
def test_one_member_is_enough(weights):
    assert run(members=1, diversity=weights).scores["0"].shape == (1, 5)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_search_that_diverges_is_told_to_slow_down():
    unbounded = NETWORKS["without"]()
    unbounded[7] = nn.ReLU()
    with pytest.raises(SettingsError, match=r"loss became .*learning rate below 1e\+30, for example 1e\+29"):
        run("without", unbounded, learning_rate=1e30)


def test_no_members_are_refused():
    with pytest.raises(SettingsError, match="members 0 must be at least 1"):
        run(members=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples 0 must be at least 1"),
        ({"epochs": -1}, "search epochs -1 must be at least 0"),
        ({"max_steps": -1}, "max_steps -1 must be at least 0"),
        ({"batch_size": 1}, "search batch_size 1 must be at least 2"),
        ({"learning_rate": 0.0}, "search learning_rate 0.0 must be above 0"),
        ({"learning_rate": float("nan")}, "search learning_rate nan must be above 0"),
        ({"epochs": 2.5, "learning_rate": "high"}, "epochs 2.5 must be a whole number; learning_rate 'high' must be a"),
        ({"samples": 0, "epochs": -1}, "samples 0 must be at least 1; search epochs -1"),
        ({"diversity": "overlap"}, "diversity 'overlap' must be weights by term"),
        ({"diversity": {"mdd": 1.0}}, "did you mean 'mmd'"),
        ({"diversity": {"mmd": -1.0}}, "weight of diversity term 'mmd' is -1.0"),
    ],
)
def test_settings_outside_their_limits_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        SearchSettings(**options)


class Flipped(nn.Module):
    """Joins a batch and its mirror image along the batch, as networks that augment in evaluation do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        joined = torch.cat([inputs, inputs.flip(-1)])
        return self.b(self.a(joined).relu()).view(2, len(inputs), 3).mean(0)


def test_a_network_that_joins_batches_is_refused():
    example = torch.rand(2, 6)
    network = Flipped()
    found = topology.find(network, example)
    with pytest.raises(NetworkError, match="cannot be told apart: a batch does not give what its parts give alone"):
        check_rows(network, found, Placement.AFTER_NORM, example)
    plain = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))
    before = copy.deepcopy(plain.state_dict())
    check_rows(plain, topology.find(plain, example), Placement.AFTER_NORM, example)
    assert plain.training
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
