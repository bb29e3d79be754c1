"""Packed-Ensembles against obvious loops and the library's own networks, and what both of its forms promise."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.implicit.torch_uncertainty import check_independent, masksembles, packed
from structured_ensembles.networks.architectures.resnet import resnet20

from .small import ARCHITECTURES, images, network_of, parameters, shift_statistics

pytest.importorskip("torch_uncertainty", exc_type=ImportError)


# --- Packed-Ensembles -----------------------------------------------------------------------------------------------


def plain(width: int, inner: int) -> nn.Sequential:
    """A network with every kind of thing that packing must get right, ``width`` channels and ``inner`` features."""
    return nn.Sequential(
        *[nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width, eps=1e-3), nn.ReLU()],
        *[nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=True), nn.GELU(), nn.MaxPool2d(2), nn.Flatten()],
        *[nn.Linear(2 * width * 16, inner), nn.Tanh(), nn.Linear(inner, 10, bias=False)],
    )


@settings(max_examples=8)
@given(members=st.integers(1, 4), width=st.integers(1, 3), inner=st.integers(1, 4), seed=st.integers(0, 9))
def test_packed_is_a_loop_over_narrow_networks(members: int, width: int, inner: int, seed: int) -> None:
    alpha = 1.5  # the plain network has M / alpha times a member's channels: choose it so that they come out whole
    wide = plain(2 * members * width, 2 * members * inner)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shared = packed(wide, members, alpha=alpha)
        shift_statistics(shared)
    narrow = plain(3 * width, 3 * inner).eval()
    expected = []
    for member in range(members):
        for name, mine in narrow.state_dict().items():
            layer = shared.network.get_submodule(name.rpartition(".")[0])
            value = getattr(getattr(layer, "conv", layer), name.rpartition(".")[2])
            # A PackedLinear holds (groups, C_out, C_in): everything else has its members in the first dimension.
            rows = value.flatten(0, 1) if value.dim() == 3 else value
            mine.copy_(rows if rows.dim() == 0 else rows.detach().chunk(members)[member])
        expected.append(narrow(images(3)))
    torch.testing.assert_close(shared.eval()(images(3)), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_packed_has_the_parameters_of_the_librarys_network() -> None:
    from torch_uncertainty.models.classification import packed_resnet

    theirs = packed_resnet(
        in_channels=3, num_classes=10, arch=20, num_estimators=4, alpha=2, gamma=1, conv_bias=False, style="cifar"
    )
    ours = packed(resnet20((3, 32, 32), 10, shortcut="project"), 4, alpha=2)
    assert parameters(ours) == parameters(theirs) == 275_144

    def shapes(network: nn.Module) -> list[tuple[int, ...]]:
        return sorted(tuple(parameter.shape) for parameter in network.parameters())

    assert shapes(ours) == shapes(theirs)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("members", "alpha", "gamma"), [(4, 2.0, 1), (3, 1.3, 1), (2, 2.0, 2), (1, 1.0, 1)])
def test_packed_members_are_independent(name: str, members: int, alpha: float, gamma: int) -> None:
    torch.manual_seed(0)
    shared = packed(network_of(name), members, alpha=alpha, gamma=gamma)
    assert shared.train()(images(3)).shape == (members, 3, 10)
    check_independent(shared, images(2))
    # The same for all of training: the gradient of member 0's logits stays in member 0's part of every tensor.
    shared.zero_grad()
    shared.eval()(images(2))[0].square().sum().backward()
    for label, parameter in shared.named_parameters():
        rows = parameter.grad.flatten(0, 1) if parameter.dim() == 3 else parameter.grad
        mine, *others = rows.chunk(members)
        assert mine.any(), label
        assert not any(other.any() for other in others), label


def test_check_independent_finds_a_mixture() -> None:
    shared = packed(network_of("small_cnn"), 2, alpha=2)
    shared.network.network[0].register_forward_hook(lambda *given: given[-1].flip(1) + given[-1])
    with pytest.raises(NetworkError, match="not independent"):
        check_independent(shared, images(2))


def test_one_member_of_the_full_width_is_the_plain_network() -> None:
    assert parameters(packed(network_of("resnet20"), 1, alpha=1)) == parameters(network_of("resnet20"))


@pytest.mark.parametrize("name", ["mlp", "vgg11"])
def test_packed_weights_start_as_those_of_the_registry(name: str) -> None:
    torch.manual_seed(0)
    shared = packed(network_of(name), 4, alpha=2)
    checked = 0
    for label, parameter in shared.named_parameters():
        if label.endswith("bias"):
            assert not parameter.any()
        elif parameter.dim() > 2 and parameter.numel() > 5000:
            fan_in = parameter.shape[-1] if parameter.dim() == 3 else parameter[0].numel()
            assert parameter.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05), label
            checked += 1
    assert checked >= 2


def test_packed_weights_start_as_those_of_a_users_own_network() -> None:
    """PyTorch's own scheme: uniform, of a width that falls with the root of the inputs, biases included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten())
        own.append(nn.Linear(64 * 12 * 12, 10))
        nn.init.constant_(own[1].weight, 0.25)
        shared = packed(own, 4, alpha=2)
    for layer, fan_in in (("0", 27), ("3", 32 * 9)):
        found = shared.network.get_submodule(layer).conv
        for values in (found.weight, found.bias):
            assert values.abs().max() <= fan_in**-0.5 * (1 + 1e-5)
            assert values.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.25)
    assert (shared.network.get_submodule("1").weight == 0.25).all()


def test_packed_keeps_the_biases_of_the_convolutions() -> None:
    kept = [name for name, _ in network_of("lenet5").named_parameters() if name.endswith("bias")]
    assert len(kept) == len([n for n, _ in packed(network_of("lenet5"), 2, alpha=1).named_parameters() if "bias" in n])
    shared = packed(network_of("resnet20"), 2, alpha=1)
    assert not [name for name, _ in shared.named_parameters() if name.endswith("conv.bias")]


class Functional(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, between: object) -> None:
        super().__init__()
        self.between = between
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.head = nn.Linear(8, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.between(self, self.conv1(inputs)).mean((2, 3)))


REFUSED = {
    "grouped": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8)), r"'1' \(Conv2d\).*8 groups"),
    "layernorm": (lambda: nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2)), r"'1' \(LayerNorm\).*mix"),
    "groupnorm": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8)), r"'1' \(GroupNorm\).*does not|mix"),
    "softmax": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Softmax(1), nn.Linear(8, 2)), r"'1' \(Softmax\).*mix"),
    "prelu": (lambda: nn.Sequential(nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 2)), r"'1' \(PReLU\)"),
    "pad": (lambda: network_of("resnet20", shortcut="pad"), r"'network.blocks.3.shortcut' cannot be packed"),
    "input norm": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 1)), r"'0' \(BatchNorm2d\).*the input"),
    "input weights": (lambda: nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 2)), r"'0' \(LayerNorm\).*share"),
    "norm of logits": (lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), r"'1' \(BatchNorm1d\).*logits"),
    "inner flatten": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(2), nn.Linear(8, 2)), r"'1' \(Flatten\)"),
    "width": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Linear(8, 2)), r"'2' \(Linear\).*dimension"),
    "late flatten": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Flatten(), nn.Linear(8, 2)), r"'1' \(Flatten\)"),
    "permute": (lambda: Functional(lambda net, x: net.conv2(x.transpose(2, 1).transpose(1, 2))), "'transpose' in the"),
    "cat": (lambda: Functional(lambda net, x: torch.cat([x, net.conv2(x)], 1)), "'cat' in the network"),
    "channel mean": (
        lambda: Functional(lambda net, x: net.conv2(x) - x.mean(1, keepdim=True)),
        "'mean' in the network",
    ),
    "shift": (lambda: Functional(lambda net, x: net.conv2(x.roll(1, 1))), "'roll' in the network"),
    "parameter": (lambda: Functional(lambda net, x: net.conv2(x) * net.scale), "'scale' in the network.*share"),
    "reuse": (lambda: Functional(lambda net, x: net.conv2(net.conv2(x))), r"'conv2' \(Conv2d\).*twice"),
    "control flow": (lambda: Functional(lambda net, x: net.conv2(x) if x.sum() > 0 else x), "Functional.*traced"),
    "no layer": (lambda: nn.Sequential(nn.Flatten()), "does not come from a layer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_packed_refuses_what_would_mix_members_and_leaves_the_network_alone(case: str) -> None:
    make, message = REFUSED[case]
    network = make()
    before = [type(module) for module in network.modules()]
    with pytest.raises(NetworkError, match=message):
        packed(network, 2, alpha=1)
    assert [type(module) for module in network.modules()] == before


def test_packed_takes_functions_that_keep_channels_apart() -> None:
    shared = packed(Functional(lambda net, x: torch.relu(net.conv2(x)) * x.mean((2, 3), keepdim=True) + 1), 2, alpha=1)
    check_independent(shared, images(2))
    first, second = shared.eval()(images(2))
    assert not torch.equal(first, second)


def test_packed_takes_networks_of_torchvision() -> None:
    models = pytest.importorskip("torchvision.models")
    for name in ("resnet18", "resnet50"):
        check_independent(packed(models.get_model(name, num_classes=10), 4, alpha=1), images(1))
    with pytest.raises(NetworkError, match=r"features\.1\.conv\.0\.0.*32 groups"):
        packed(models.mobilenet_v2(num_classes=10), 2, alpha=1)


def test_packed_refuses_impossible_sizes() -> None:
    for arguments, message in (
        ({"members": 0, "alpha": 1}, "members must be"),
        ({"members": 2, "alpha": 0}, "alpha must be a number"),
        ({"members": 2, "alpha": 9}, "alpha must be a number from 0.001 to 8, not 9"),
        ({"members": 2, "alpha": float("nan")}, "alpha must be a number"),
        ({"members": 2, "alpha": 1, "gamma": 0}, "gamma must be a whole number"),
    ):
        with pytest.raises(SettingsError, match=message):
            packed(network_of("mlp"), **arguments)


# --- both -----------------------------------------------------------------------------------------------------------

FORMS = {"packed": lambda network: packed(network, 4, alpha=2), "masksembles": lambda network: masksembles(network, 4)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_seed_state_and_copies(form: str, name: str) -> None:
    def drawn(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        np.random.seed(seed + 1)  # noqa: NPY002 (must not matter)
        return FORMS[form](network_of(name)).eval()

    network, again, other = drawn(0), drawn(0), drawn(1)
    expected = network(images(2))
    assert torch.equal(again(images(2)), expected)
    assert not torch.equal(other(images(2)), expected)
    state = network.state_dict()
    assert all(value.layout == torch.strided and value.dtype != torch.float64 for value in state.values())
    other.load_state_dict(state)
    assert torch.equal(other(images(2)), expected)
    assert torch.equal(copy.deepcopy(network)(images(2)), expected)
    assert copy.deepcopy(network).to("meta")(images(2).to("meta")).shape == (4, 2, 10)
    with torch.device("meta"):
        assert FORMS[form](network_of(name)).eval()(images(2).to("meta")).shape == (4, 2, 10)


@pytest.mark.parametrize("form", FORMS)
def test_numpys_generator_is_left_alone_and_the_mode_is_kept(form: str) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    network = FORMS[form](network_of("small_cnn").eval())
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_library_is_an_error_with_its_remedy(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("packed", "masksembles"):
        monkeypatch.setitem(sys.modules, f"torch_uncertainty.layers.{name}", None)
    with pytest.raises(SettingsError, match=r"need a package: pip install 'structured-ensembles\[compare\]'"):
        FORMS[form](network_of("mlp"))
