from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from structured_ensembles.channels import topology
from structured_ensembles.errors import NetworkError
from structured_ensembles.options.choices import Parametrisation, Placement
from structured_ensembles.scores.scaling import ScaleFactors, frozen, scaled
from structured_ensembles.types import Cut, Group, Side, Topology

SAMPLED = [kind for kind in Parametrisation if kind not in (Parametrisation.FREE, Parametrisation.CONSTANT)]


# --- networks of every kind of layout -------------------------------------------------------------------------------


class Grouped(nn.Module):
    """A grouped convolution (whole groups are channels) and a flatten (several positions per channel)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.last = nn.Linear(12 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).relu()).relu().flatten(1))


class Dense(nn.Module):
    """Concatenations: a normalisation holds several groups, each at its own offset."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(7)
        self.last = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.conv1(self.norm1(x).relu())], dim=1)
        return self.last(self.norm2(x).relu().mean(dim=(2, 3)))


class Tokens(nn.Module):
    """Like a transformer's MLP: Linear layers on (B, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 2, stride=2)
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 9), nn.Linear(9, 6)
        self.last = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.last((x + self.down(self.up(self.norm(x)).relu())).mean(dim=1))


class Folded(nn.Module):
    """Folds its tokens into the batch, example by example."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.last = nn.Linear(12, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(len(x) * 4, 12)
        return self.last(self.up(rows).relu().reshape(len(x), 4, -1).mean(dim=1))


def plain() -> nn.Module:
    body = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(16, 7), nn.ReLU(), nn.Linear(7, 5))


NETWORKS = {"plain": plain, "grouped": Grouped, "dense": Dense, "tokens": Tokens, "folded": Folded}
INPUTS = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def make(name: str) -> tuple[nn.Module, Topology]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETWORKS[name]().double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval(), topology.find(network, INPUTS[:2].float())


def random_scores(found: Topology, members: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    widths = found.widths.items()
    return {name: torch.randn(members, width, generator=generator, dtype=torch.float64) for name, width in widths}


@pytest.mark.parametrize("placement", Placement)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("part", [slice(None), slice(1), slice(-1, None)], ids=["all groups", "first", "last"])
def test_one_pass_equals_each_example_alone_on_a_network_scaled_by_hand(name, placement, part):
    network, whole = make(name)
    found = replace(whole, groups=whole.groups[part])  # what is left out may leave gaps between stretches
    scores, member = random_scores(found, 3), torch.tensor([0, 2, 1, 1, 0, 2])
    with scaled(network, found, placement) as scaler:
        scaler.use(scores, member)
        together = network(INPUTS)
    for row, own in enumerate(member.tolist()):
        by_hand = multiplied(network, found, placement, {group: values[own] for group, values in scores.items()})
        torch.testing.assert_close(together[row : row + 1], by_hand(INPUTS[row : row + 1]))
    assert not torch.allclose(together, network(INPUTS))


def multiplied(network: nn.Module, found: Topology, placement: Placement, scores: dict[str, Tensor]) -> nn.Module:
    """The network with one member's scale factors in its weights, one channel and one position at a time."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for group in found.groups:
            for cut in group.scaled[placement]:
                module = network.get_submodule(cut.module)
                for channel in range(group.channels):
                    for step in range(cut.repeat):
                        at = cut.offset + channel * cut.repeat + step
                        module.weight[at] *= scores[group.name][channel]
                        if module.bias is not None:
                            module.bias[at] *= scores[group.name][channel]
    return network


def test_the_networks_have_the_layouts_that_are_meant():
    dense, grouped = make("dense")[1], make("grouped")[1]
    assert any(cut.offset for group in dense.groups for cut in group.scaled[Placement.AFTER_NORM])
    assert any(cut.repeat > 1 for group in grouped.groups for cut in group.scaled[Placement.AFTER_NORM])
    assert [cut.module for cut in make("plain")[1].groups[0].scaled[Placement.AFTER_NORM]] == ["1"]
    assert [cut.module for cut in make("plain")[1].groups[0].scaled[Placement.BEFORE_NORM]] == ["0"]


def test_zero_after_the_normalisation_switches_a_channel_off_and_before_it_does_not():
    network, found = make("plain")
    off = {name: torch.ones(1, width, dtype=torch.float64) for name, width in found.widths.items()}
    off["0"][0, 2] = 0
    seen: list[Tensor] = []
    network[2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for placement in (Placement.AFTER_NORM, Placement.BEFORE_NORM):
        with scaled(network, found, placement) as scaler:
            scaler.use(off, torch.zeros(6, dtype=torch.int64))
            network(INPUTS)
    after, before = seen
    assert (after[:, 2] == 0).all()
    assert (before[:, 2] != 0).all()


# --- attaching and detaching ----------------------------------------------------------------------------------------


def snapshot(network: nn.Module) -> dict[str, object]:
    """Everything that scaling or freezing could leave behind."""
    return {
        "values": {name: value.clone() for name, value in (*network.named_parameters(), *network.named_buffers())},
        "saved": list(network.state_dict()),
        "tensors": [id(tensor) for tensor in (*network.parameters(), *network.buffers())],
        "hooks": [
            [list(hooks) for key, hooks in vars(module).items() if key.endswith(("_hooks", "_kwargs", "_called"))]
            for module in network.modules()
        ],
        "attributes": [sorted(vars(module)) for module in network.modules()],
        "classes": [type(module) for module in network.modules()],
        "training": [module.training for module in network.modules()],
        "requires_grad": [parameter.requires_grad for parameter in network.parameters()],
        "grads": [None if parameter.grad is None else parameter.grad.clone() for parameter in network.parameters()],
    }


def assert_same(before: dict[str, object], after: dict[str, object]) -> None:
    torch.testing.assert_close(after.pop("values"), before.pop("values"), rtol=0, atol=0)
    grads = zip(before.pop("grads"), after.pop("grads"), strict=True)
    assert all(torch.equal(old, new) if old is not None else new is None for old, new in grads)
    assert before == after


class Counting(nn.Module):
    """A buffer that each pass replaces, one that it writes into, and one that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("written", torch.zeros(()))
        self.register_buffer("passing", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.replaced = self.replaced + 1
        self.written += 1
        self.passing += 1
        return x


def restless() -> nn.Module:
    """A network with user's hooks, mixed flags, gradients, and buffers that move."""
    network = plain()
    network.insert(1, nn.BatchNorm2d(6, momentum=None))
    network.append(Counting())
    network[0].register_forward_hook(lambda *_: None)
    network[0].register_forward_pre_hook(lambda *_: None)
    network(torch.randn(4, 3, 4, 4)).sum().backward()
    network[3].eval()
    network[0].weight.requires_grad_(requires_grad=False)
    return network


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("placement", Placement)
def test_scaling_and_freezing_leave_nothing_behind(placement, fails):
    network = restless()
    found = topology.find(network, torch.randn(2, 3, 4, 4))
    before = snapshot(network)
    outcome = pytest.raises(RuntimeError, match="shapes") if fails else nullcontext()
    with outcome, frozen(network), scaled(network, found, placement) as scaler:
        assert all(module.training for module in network.modules())
        scaler.use({name: torch.ones(2, c) for name, c in found.widths.items()}, torch.tensor([0, 0, 1, 1]))
        network(torch.randn(4, 3, 4, 4))
        assert not torch.equal(network[1].running_mean, before["values"]["1.running_mean"])
        network(torch.randn(4, 3, 5 if fails else 4, 4))
    assert_same(before, snapshot(network))


def test_a_topology_of_another_network_leaves_no_hook_either():
    network, found = make("plain")
    missing = Group("absent", 3, (), private=True, scaled={Placement.AFTER_NORM: (Cut("absent", Side.OUT),)})
    before = snapshot(network)
    with pytest.raises(AttributeError), scaled(network, Topology((*found.groups, missing), 5), Placement.AFTER_NORM):
        pass
    assert_same(before, snapshot(network))


def test_freezing_computes_no_gradient_of_weights_but_one_of_scores():
    network, found = make("plain")
    scores = {name: torch.ones(1, width, requires_grad=True) for name, width in found.widths.items()}
    with frozen(network), scaled(network, found, Placement.AFTER_NORM) as scaler:
        scaler.use(scores, torch.zeros(6, dtype=torch.int64))
        network(INPUTS).sum().backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(leaf.grad is not None and leaf.grad.any() for leaf in scores.values())


def test_a_half_precision_network_stays_in_half_precision():
    network, found = make("tokens")
    with scaled(network.bfloat16(), found, Placement.AFTER_NORM) as scaler:
        scaler.use({name: torch.ones(1, c) for name, c in found.widths.items()}, torch.zeros(6, dtype=torch.int64))
        assert network(INPUTS.bfloat16()).dtype == torch.bfloat16


class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.last = nn.Linear(12, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.up(x.reshape(len(x), 4, 12).transpose(0, 1)).relu().mean(dim=0))


def test_examples_that_cannot_be_told_apart_are_refused_by_the_layers_name():
    network = TimeFirst()
    found = topology.find(network, INPUTS[:2].float())
    with scaled(network, found, Placement.AFTER_NORM) as scaler:
        scaler.use({name: torch.ones(1, c) for name, c in found.widths.items()}, torch.zeros(6, dtype=torch.int64))
        with pytest.raises(NetworkError, match=r"layer 'up' turns a batch of 6 into 4 rows.*batch_first=True"):
            network(INPUTS.float())


# --- parametrisations -----------------------------------------------------------------------------------------------

WIDTHS = {"a": 300, "b": 200}


def factors(kind: Parametrisation, members: int = 3, samples: int = 1, seed: int = 0) -> ScaleFactors:
    return ScaleFactors(WIDTHS, members, kind, samples, torch.Generator().manual_seed(seed))


def parameters_of(made: ScaleFactors) -> list[Tensor]:
    """The distributions' own parameters of group a."""
    kind = made.distributions()["a"]
    names = {
        "Normal": ("loc", "scale"),
        "Laplace": ("loc", "scale"),
        "Beta": ("concentration1", "concentration0"),
        "Gamma": ("concentration", "rate"),
        "Exponential": ("rate",),
    }
    return [getattr(kind, name) for name in names[type(kind).__name__]]


@pytest.mark.parametrize("kind", Parametrisation)
@pytest.mark.parametrize("members", [1, 3])
def test_shapes_and_names_of_every_parametrisation(kind, members):
    made = factors(kind, members)
    for scores in (made.sample(), made.mean()):
        assert {name: tuple(value.shape) for name, value in scores.items()} == {
            "a": (members, 300),
            "b": (members, 200),
        }
    assert not any(value.requires_grad for value in made.mean().values())


@pytest.mark.parametrize(
    ("kind", "starts"),
    [
        (Parametrisation.NORMAL, (0, 1)),
        (Parametrisation.LAPLACE, (0, 1)),
        (Parametrisation.GAMMA, (1, 2)),
        (Parametrisation.EXPONENTIAL, (1,)),
    ],
)
def test_start_values_of_the_distributions(kind, starts):
    for value, start in zip(parameters_of(factors(kind)), starts, strict=True):
        torch.testing.assert_close(value, torch.full_like(value, start))


def test_start_values_that_are_drawn():
    free = torch.cat([*factors(Parametrisation.FREE).mean().values()], dim=1).flatten()
    assert abs(free.mean()) < 4 / len(free) ** 0.5
    assert free.std() == pytest.approx(1, abs=0.1)
    assert abs(free.pow(4).mean() / free.var() ** 2 - 3) < 0.6  # a normal's kurtosis
    assert (factors(Parametrisation.CONSTANT).sample()["a"] == 1).all()
    first, second = parameters_of(factors(Parametrisation.BETA))
    for value in (first, second):
        assert 1 - 1e-5 <= value.min() < 1.1
        assert 1.9 < value.max() <= 2 + 1e-5
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("kind", SAMPLED)
def test_the_mean_is_the_distributions_and_what_many_samples_approach(kind):
    made = factors(kind, samples=1000)
    mean, several = made.mean(), made.sample()
    torch.testing.assert_close(mean["b"], made.distributions()["b"].mean)
    errors = (several["b"] - mean["b"]).abs() / (made.distributions()["b"].stddev / 1000**0.5)
    assert errors.max() < 5.5


@pytest.mark.parametrize("kind", Parametrisation)
def test_every_trained_value_gets_a_gradient_however_far_it_has_gone(kind):
    made = factors(kind)
    with torch.no_grad():
        made.raw[-1][:, ::2] = -8.0
    sum((value**2).sum() + value.sum() for value in made.sample().values()).backward()
    for raw in made.raw:
        assert raw.grad.isfinite().all()
        assert (raw.grad != 0).float().mean() > 0.95


@settings(max_examples=20)
@given(st.sampled_from(SAMPLED), st.floats(-15, 30))
def test_positive_parameters_stay_positive(kind, raw):
    made = factors(kind)
    with torch.no_grad():
        for value, positive in zip(made.raw, made.family.positive, strict=True):
            value.fill_(raw if positive else 0.0)
    for value, positive in zip(parameters_of(made), made.family.positive, strict=True):
        assert not positive or (value > 0).all()


@pytest.mark.parametrize("kind", Parametrisation)
def test_start_values_follow_the_seed_and_leave_the_global_generator(kind):
    state = torch.get_rng_state()
    first, second, other = (list(factors(kind, seed=seed).raw) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    drawn = kind in (Parametrisation.FREE, Parametrisation.BETA)
    assert drawn != all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("kind", Parametrisation)
def test_plain_factors_have_no_distribution_and_are_not_sampled(kind):
    made = factors(kind)
    assert (made.distributions() is None) == (kind not in SAMPLED)
    assert (kind in SAMPLED) != torch.equal(made.sample()["a"], made.sample()["a"])
