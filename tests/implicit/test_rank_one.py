from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.implicit.rank_one import RankOne, with_rank_one_factors
from structured_ensembles.networks.architectures.lenet import lenet5
from structured_ensembles.networks.architectures.perceptron import mlp
from structured_ensembles.networks.architectures.resnet import resnet20
from structured_ensembles.networks.architectures.vgg import small_vgg

IMAGES = (3, 8, 8)
BUILDERS = {"resnet20": resnet20, "small_vgg": small_vgg, "mlp": mlp, "lenet5": lenet5}


def draw(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain(name: str) -> nn.Module:
    torch.manual_seed(0)
    return settled(BUILDERS[name](IMAGES, 10))


def settled(network: nn.Module) -> nn.Module:
    """Biases and statistics that are not zero, where they would hide a fault; evaluation mode."""
    for name, tensor in network.state_dict().items():
        if tensor.dim() == 1:
            tensor.copy_(draw(tuple(tensor.shape), len(name)).abs() + 0.5)
    return network.eval()


def scrambled(shared: nn.Module) -> nn.Module:
    """Factors and biases far from their start."""
    with torch.no_grad():
        for position, module in enumerate(each for each in shared.modules() if isinstance(each, RankOne)):
            module.r.copy_(draw(tuple(module.r.shape), position))
            module.s.copy_(draw(tuple(module.s.shape), position + 1000))
            if module.bias is not None:
                module.bias.copy_(draw(tuple(module.bias.shape), position + 2000))
    return shared


def member_of(network: nn.Module, shared: nn.Module, member: int) -> nn.Module:
    """Oracle: the plain network whose every weight is W times the outer product of s and r, in an obvious loop."""
    single = copy.deepcopy(network)
    for name, layer in single.named_modules():
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            continue
        part = shared.get_submodule(f"network.{name}")
        groups = getattr(layer, "groups", 1)
        with torch.no_grad():
            out, inside = layer.weight.shape[:2]
            for o in range(out):
                first = (o // (out // groups)) * inside
                for i in range(inside):
                    layer.weight[o, i] *= part.s[member, o] * part.r[member, first + i]
            if layer.bias is not None:
                layer.bias.copy_(part.bias[member])
    return single


def assert_is_its_members(network: nn.Module, members: int, batch: Tensor) -> None:
    shared = scrambled(with_rank_one_factors(copy.deepcopy(network), members)).eval()
    expected = torch.stack([member_of(network, shared, member)(batch) for member in range(members)])
    scale = expected.abs().max()
    torch.testing.assert_close(shared(batch) / scale, expected / scale, rtol=1e-4, atol=1e-5)


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["small_vgg", "mlp", "resnet20"])
def test_it_answers_as_its_members_would_one_by_one(name: str) -> None:
    with torch.no_grad():
        assert_is_its_members(plain(name), 2, draw((3, *IMAGES)))


@settings(max_examples=20)
@given(
    members=st.integers(1, 4),
    examples=st.integers(0, 3),
    groups=st.integers(1, 3),
    inside=st.integers(1, 3),
    outside=st.integers(1, 3),
    dimensions=st.integers(1, 3),
    bias=st.booleans(),
    padding=st.sampled_from(["zeros", "circular"]),
)
def test_convolutions_of_any_shape(
    members: int, examples: int, groups: int, inside: int, outside: int, dimensions: int, bias: bool, padding: str
) -> None:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    conv = kind(groups * inside, groups * outside, 3, groups=groups, bias=bias, padding=1, padding_mode=padding)
    network = nn.Sequential(conv, nn.Flatten(), nn.Linear(groups * outside * 4**dimensions, 2))
    if examples:
        assert_is_its_members(network, members, draw((examples, groups * inside, *[4] * dimensions)))
    else:
        nothing = torch.zeros(0, groups * inside, *[4] * dimensions)
        assert with_rank_one_factors(network, members)(nothing).shape == (members, 0, 2)


@settings(max_examples=15)
@given(members=st.integers(1, 4), examples=st.integers(1, 3), tokens=st.integers(1, 3), bias=st.booleans())
def test_linear_layers_on_any_number_of_dimensions(members: int, examples: int, tokens: int, bias: bool) -> None:
    network = nn.Sequential(nn.Linear(4, 6, bias=bias), nn.ReLU(), nn.Flatten(), nn.Linear(6 * tokens**2, 3))
    assert_is_its_members(network, members, draw((examples, tokens, tokens, 4)))


def test_rows_folded_into_the_batch_stay_with_their_member() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.last = nn.Linear(4, 7), nn.Linear(7, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.up(x.reshape(-1, 4)).relu().reshape(len(x), 3, -1).mean(dim=1))

    assert_is_its_members(Folded(), 3, draw((2, 12)))


@pytest.mark.parametrize("name", BUILDERS)
def test_one_member_with_factors_of_one_is_the_plain_network(name: str) -> None:
    network, batch = plain(name), draw((3, *IMAGES))
    shared = with_rank_one_factors(copy.deepcopy(network), 1).eval()
    for module in shared.modules():
        if isinstance(module, RankOne):
            nn.init.ones_(module.r)
            nn.init.ones_(module.s)
    torch.testing.assert_close(shared(batch), network(batch)[None], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BUILDERS)
def test_an_answer_depends_on_its_example_alone_in_evaluation_mode(name: str) -> None:
    shared, batch = with_rank_one_factors(plain(name), 3).eval(), draw((5, *IMAGES))
    answers = shared(batch)
    assert answers.shape == (3, 5, 10)
    torch.testing.assert_close(shared(batch[3:4]), answers[:, 3:4], rtol=1e-4, atol=1e-4)
    assert torch.equal(shared(batch), answers)


def test_in_training_mode_every_member_sees_every_example_and_all_normalise_together() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    shared = with_rank_one_factors(network, 3).train()
    outputs: list[Tensor] = []
    shared.network[0].register_forward_hook(lambda _m, _i, output: outputs.append(output))
    logits = shared(draw((5, *IMAGES)))
    assert logits.shape == (3, 5, 2)
    assert outputs[0].shape[0] == 15
    torch.testing.assert_close(network[1].running_mean, 0.1 * outputs[0].mean(dim=(0, 2, 3)))
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in shared.parameters())


# --- how it starts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layers"), [("resnet20", 19 + 2 + 1), ("small_vgg", 6), ("mlp", 3), ("lenet5", 5)])
def test_every_layer_is_converted_and_keeps_its_weight_and_bias(name: str, layers: int) -> None:
    network = plain(name)
    weights = {key: (layer, layer.weight, layer.bias) for key, layer in network.named_modules() if is_layer(layer)}
    shared = with_rank_one_factors(network, 4)
    parts = {key: part for key, part in shared.named_modules() if isinstance(part, RankOne)}
    assert len(parts) == len(weights) == layers
    assert sum(is_layer(module) for module in shared.modules()) == layers
    for key, (layer, weight, bias) in weights.items():
        part = parts[f"network.{key}"]
        assert part.layer is layer
        assert part.layer.weight is weight
        assert part.layer.bias is None
        assert (part.bias is None) == (bias is None)
        if bias is not None:
            assert torch.equal(part.bias, bias.expand(4, -1))


def is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


@pytest.mark.parametrize("name", BUILDERS)
def test_members_differ_at_the_start(name: str) -> None:
    answers = with_rank_one_factors(plain(name), 3).eval()(draw((4, *IMAGES)))
    for member in range(3):
        assert (answers[member] - answers[member - 1]).abs().max() > 1e-2


def test_factors_start_at_random_signs_of_the_global_generator() -> None:
    def factors(seed: int) -> list[Tensor]:
        network = nn.Sequential(nn.Linear(300, 200))
        torch.manual_seed(seed)
        part = with_rank_one_factors(network, 4).network[0]
        return [part.r.detach(), part.s.detach()]

    r, s = factors(1)
    assert (r.shape, s.shape) == ((4, 300), (4, 200))
    for values in (r, s):
        assert set(values.unique().tolist()) == {-1.0, 1.0}
        assert values.mean().abs() < 0.15  # 800 signs at least: 4 standard errors
    assert torch.equal(factors(1)[0], r)
    assert not torch.equal(factors(2)[0], r)


def test_it_costs_the_factors_and_the_biases() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 2, bias=False))
    shared = with_rank_one_factors(network, 3)
    weights, factors, biases = 192 * 8 + 8 * 2, 3 * (192 + 8 + 8 + 2), 3 * 8
    assert sum(parameter.numel() for parameter in shared.parameters()) == weights + factors + biases


# --- networks of every kind -------------------------------------------------------------------------------------------


def test_a_network_that_is_one_layer_is_converted() -> None:
    shared = with_rank_one_factors(nn.Linear(4, 2), 3)
    assert isinstance(shared.network, RankOne)
    assert shared(draw((5, 4))).shape == (3, 5, 2)


def test_a_module_under_two_names_stays_one_module() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = self.first
            self.block = nn.Sequential(nn.Linear(4, 4))
            self.again = nn.ModuleDict({"block": self.block})
            self.last = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.again["block"](self.block(self.second(self.first(x).relu()).relu()).relu()))

    network = Twice()
    shared = with_rank_one_factors(network, 2)
    assert isinstance(network.first, RankOne)
    assert network.second is network.first
    assert network.again["block"] is network.block
    assert sum(isinstance(module, RankOne) for module in shared.modules()) == 3
    assert_is_its_members(Twice(), 2, draw((3, 4)))


def test_transposed_convolutions_stay_as_they_are() -> None:
    network = nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.Flatten(), nn.Linear(4 * 81, 2))
    shared = with_rank_one_factors(network, 2)
    assert type(shared.network[0]) is nn.ConvTranspose2d
    assert shared(draw((3, *IMAGES))).shape == (2, 3, 2)


class Attentive(nn.Module):
    """A transformer's attention, whose projections are read without being called."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.attention = nn.Linear(3, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        return self.last(self.attention(x, x, x, need_weights=False)[0].mean(dim=1))


def test_the_projections_of_attention_are_shared() -> None:
    network, batch = Attentive(), draw((3, 5, 3))
    shared = scrambled(with_rank_one_factors(copy.deepcopy(network), 2)).eval()
    assert type(shared.network.attention.out_proj) is type(network.attention.out_proj)
    for member in range(2):
        single = copy.deepcopy(network).eval()
        for name in ("up", "last"):
            part, layer = shared.get_submodule(f"network.{name}"), single.get_submodule(name)
            with torch.no_grad():
                layer.weight.mul_(torch.outer(part.s[member], part.r[member]))
                layer.bias.copy_(part.bias[member])
        torch.testing.assert_close(shared(batch)[member], single(batch), rtol=1e-4, atol=1e-5)


# --- a module like any other ------------------------------------------------------------------------------------------


def test_weight_decay_leaves_the_factors_alone() -> None:
    shared = with_rank_one_factors(plain("resnet20"), 2)
    names = dict(shared.named_parameters())
    expected = {name for name in names if name.endswith((".r", ".s"))}
    assert shared.no_weight_decay() == expected
    assert len(expected) == 2 * 22


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_works_on_its_own(copied) -> None:
    shared, batch = with_rank_one_factors(plain("resnet20"), 2).eval(), draw((3, *IMAGES))
    answers = shared(batch)
    other = copied(shared)
    assert torch.equal(other(batch), answers)
    nn.init.zeros_(other.network.conv.r)
    other.rows.count = 7
    assert torch.equal(shared(batch), answers)
    assert other.network.conv.rows is other.rows
    assert not torch.equal(other(batch), answers)


def test_its_state_makes_another_one_the_same() -> None:
    shared, batch = scrambled(with_rank_one_factors(plain("resnet20"), 2)).eval(), draw((3, *IMAGES))
    state = shared.state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    torch.manual_seed(5)
    other = with_rank_one_factors(resnet20(IMAGES, 10), 2).eval()
    assert not torch.equal(other(batch), shared(batch))
    other.load_state_dict(state)
    assert torch.equal(other(batch), shared(batch))


def test_it_runs_on_the_meta_device_and_is_built_there() -> None:
    shared = with_rank_one_factors(plain("resnet20"), 2).eval()
    shared(draw((3, *IMAGES)))
    batch = torch.zeros(3, *IMAGES, device="meta")
    assert copy.deepcopy(shared).to("meta")(batch).shape == (2, 3, 10)
    with torch.device("meta"):
        built = with_rank_one_factors(resnet20(IMAGES, 10), 2).eval()
    assert built(batch).shape == (2, 3, 10)
    assert with_rank_one_factors(resnet20(IMAGES, 10).to("meta"), 2).network.head.r.is_meta


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_fewer_members_than_one_are_refused() -> None:
    with pytest.raises(SettingsError, match="members 0 must be at least 1"):
        with_rank_one_factors(nn.Linear(2, 2), 0)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "no convolution and no Linear layer"),
        (nn.Sequential(nn.ReLU(), nn.LazyLinear(3)), "layer '1' is lazy.*run the network once"),
        (nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2)), "layer '1'.*without calling them"),
    ],
)
def test_what_cannot_have_factors_is_refused_and_left_as_it_was(network: nn.Module, message: str) -> None:
    before = list(network)
    with pytest.raises(NetworkError, match=message):
        with_rank_one_factors(network, 2)
    assert list(network) == before


class Reshaping(nn.Module):
    """Does something to the batch between two layers."""

    def __init__(self, reshape, inside: int = 4) -> None:
        super().__init__()
        self.up, self.reshape, self.last = nn.Linear(4, 4), reshape, nn.Linear(inside, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.reshape(self.up(x)))


@pytest.mark.parametrize(
    ("reshape", "inside"),
    [
        (lambda x: x.mean(dim=0, keepdim=True), 4),  # a single row
        (lambda x: x.flatten(), 24),  # no batch at all
        (lambda x: x[:, None].expand(-1, 2, -1).transpose(0, 1), 4),  # 2 rows: divisible by M, but not by M * B
    ],
)
def test_a_layer_whose_input_lost_the_batch_is_named(reshape, inside: int) -> None:
    shared = with_rank_one_factors(Reshaping(reshape, inside), 2)
    with pytest.raises(NetworkError, match=r"layer 'last' gets an input of shape .* 6 examples of all 2 members"):
        shared(draw((3, 4)))
    assert shared.rows.count == 2


def test_an_output_that_lost_the_batch_is_refused() -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.Flatten(0))
    with pytest.raises(NetworkError, match=r"logits of shape \(B, K\) = \(6, K\), but is \(36,\)"):
        with_rank_one_factors(network, 2)(draw((3, 4)))
