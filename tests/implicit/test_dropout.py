from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.implicit.dropout import output_layer, with_dropout
from structured_ensembles.networks.architectures.perceptron import mlp
from structured_ensembles.networks.architectures.resnet import resnet20
from structured_ensembles.networks.architectures.vgg import small_vgg

IMAGES = (3, 8, 8)
BUILDERS = {"resnet20": resnet20, "small_vgg": small_vgg, "mlp": mlp}
OUTPUTS = {"resnet20": "head", "small_vgg": "19", "mlp": "5"}
HIDDEN = {"resnet20": 19 + 2, "small_vgg": 5, "mlp": 2}


def inputs(examples: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(examples, *IMAGES, generator=torch.Generator().manual_seed(seed))


def plain(name: str) -> nn.Module:
    torch.manual_seed(0)
    return BUILDERS[name](IMAGES, 10)


def dropped(name: str, members: int = 3, **options: float) -> nn.Module:
    return with_dropout(plain(name), members, output=OUTPUTS[name], **options)


def zero_shares(shared: nn.Module, batch: Tensor) -> dict[str, list[float]]:
    """By layer, the share of zeros in what the next module gets, call after call."""
    shares: dict[str, list[float]] = {}
    hooks = [
        module.register_forward_hook(
            lambda _m, _i, output, name=name: shares.setdefault(name, []).append((output == 0).float().mean().item())
        )
        for name, module in shared.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        shared(batch)
    for hook in hooks:
        hook.remove()
    return shares


# --- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("training", [True, False])
def test_every_hidden_layer_drops_its_share_and_the_output_layer_nothing(name: str, training: bool) -> None:
    shares = zero_shares(dropped(name, members=16).train(training), inputs(16))
    output = shares.pop(f"network.{OUTPUTS[name]}")
    assert max(output) == 0
    assert len(shares) == HIDDEN[name]
    for layer, calls in shares.items():
        assert len(calls) == (1 if training else 16)
        # 2,048 elements at least: 0.25 with a standard error below 0.01
        assert sum(calls) / len(calls) == pytest.approx(0.25, abs=0.05), layer


@pytest.mark.parametrize("name", BUILDERS)
def test_the_output_layer_is_found_and_nothing_is_left_of_the_search(name: str) -> None:
    network = plain(name)
    next(network.children()).eval()
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    generator = torch.get_rng_state()
    assert output_layer(network, inputs(2)) == OUTPUTS[name]
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_the_output_layer_is_the_last_that_runs_not_the_last_that_is_declared() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.rand_like(self.first(x)))

    network, example = Backwards(), torch.rand(2, 3)
    generator = torch.get_rng_state()
    assert output_layer(network, example) == "last"
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_network_without_layers_or_that_fails_has_no_output_layer() -> None:
    with pytest.raises(NetworkError, match="runs no convolution"):
        output_layer(nn.Flatten(), inputs())
    network = nn.Linear(3, 2)
    with pytest.raises(NetworkError, match=r"fails on an example input of shape \(2, 5\)"):
        output_layer(network, torch.zeros(2, 5))
    assert network.training
    assert not network._forward_hooks


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
def test_training_is_ordinary_dropout_from_the_global_generator(name: str) -> None:
    shared = dropped(name).train()
    torch.manual_seed(1)
    first, second = shared(inputs()), shared(inputs())
    torch.manual_seed(1)
    assert first.shape == (4, 10)
    assert not torch.equal(first, second)
    assert torch.equal(shared(inputs()), first)


def test_training_equals_a_network_with_dropout_modules() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5), nn.ReLU(), nn.Linear(5, 2))
    parts = list(copy.deepcopy(network))
    reference = nn.Sequential(parts[0], nn.Dropout(0.25), *parts[1:4], nn.Dropout(0.25), *parts[4:])
    shared = with_dropout(network, 2, output="5")
    torch.manual_seed(3)
    expected = reference(inputs())
    torch.manual_seed(3)
    assert torch.equal(shared(inputs()), expected)


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
def test_samples_differ_and_an_answer_depends_on_its_example_alone(name: str) -> None:
    shared = dropped(name).eval()
    batch = inputs(5)
    generator = torch.get_rng_state()
    answers = shared(batch)
    assert answers.shape == (3, 5, 10)
    assert torch.equal(torch.get_rng_state(), generator)
    for member in range(3):
        assert (answers[member] - answers[member - 1]).abs().max() > 1e-3
    torch.manual_seed(99)
    assert torch.equal(shared(batch), answers)
    torch.testing.assert_close(shared(batch[3:4]), answers[:, 3:4], rtol=1e-4, atol=1e-4)
    other = shared(torch.cat([inputs(2, seed=7), batch.flip(0)]))[:, 2:].flip(1)
    torch.testing.assert_close(other, answers, rtol=1e-4, atol=1e-4)


@settings(max_examples=10)
@given(probability=st.floats(0.05, 0.9), seed=st.integers(0, 2**40), members=st.integers(1, 3))
def test_the_answers_are_those_of_the_masks(probability: float, seed: int, members: int) -> None:
    """Oracle: the layers one by one, with the mask read off an output of ones."""
    first, second = nn.Linear(6, 40), nn.Linear(40, 3)
    batch, options = inputs()[:, 0, 0, :6], {"output": "1", "probability": probability, "seed": seed}
    shared = with_dropout(nn.Sequential(first, second), members, **options).eval()
    identity = with_dropout(nn.Sequential(Ones(40), nn.Linear(40, 3)), members, **options).eval()
    masks: list[Tensor] = []
    identity.network[0].register_forward_hook(lambda _m, _i, output: masks.append(output[:1]))
    identity(batch)
    answers = shared(batch)
    for member in range(members):
        kept = masks[member][masks[member] != 0]
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - probability)))
        hidden = (batch @ first.weight.T + first.bias) * masks[member]
        torch.testing.assert_close(answers[member], hidden @ second.weight.T + second.bias)


class Ones(nn.Linear):
    """A layer whose output is all ones."""

    def __init__(self, width: int) -> None:
        super().__init__(6, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), self.out_features)


def test_the_mean_is_kept() -> None:
    shared = with_dropout(nn.Sequential(Ones(400), nn.Linear(400, 1)), 50, output="1").eval()
    outputs: list[Tensor] = []
    shared.network[0].register_forward_hook(lambda _m, _i, output: outputs.append(output))
    shared(torch.zeros(1, 6))
    # 20,000 elements of variance 1/3: a standard error of 0.004
    assert torch.cat(outputs).mean().item() == pytest.approx(1, abs=0.02)


def test_the_seed_draws_the_masks_and_more_members_keep_the_first_ones() -> None:
    answers = dropped("mlp", seed=1).eval()(inputs())
    assert not torch.allclose(answers, dropped("mlp", seed=2).eval()(inputs()))
    assert torch.equal(answers, dropped("mlp", members=5, seed=1).eval()(inputs())[:3])


@pytest.mark.parametrize("name", BUILDERS)
def test_without_dropout_it_is_the_plain_network(name: str) -> None:
    batch, network = inputs(), plain(name)
    shared = dropped(name, probability=0)
    torch.testing.assert_close(shared.train()(batch), network.train()(batch), rtol=0, atol=0)
    expected = network.eval()(batch)
    assert torch.equal(shared.eval()(batch), torch.stack([expected] * 3))


def test_the_networks_own_dropout_is_off_in_evaluation_mode() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.9), nn.Linear(8, 2))
    without = nn.Sequential(network[0], copy.deepcopy(network[1]), nn.Identity(), copy.deepcopy(network[3]))
    answers = with_dropout(network, 2, output="3").eval()(inputs())
    assert torch.equal(answers, with_dropout(without, 2, output="3").eval()(inputs()))


def test_half_precision_and_other_sizes_go_through() -> None:
    shared = dropped("resnet20").eval()
    assert shared(torch.rand(2, 3, 16, 12)).shape == (3, 2, 10)
    assert shared.to(torch.bfloat16)(inputs().to(torch.bfloat16)).dtype is torch.bfloat16
    assert shared(torch.zeros(0, *IMAGES, dtype=torch.bfloat16)).shape == (3, 0, 10)


# --- a module like any other ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
def test_its_state_is_that_of_the_plain_network_behind_a_prefix(name: str) -> None:
    state, network = dropped(name).state_dict(), plain(name)
    assert list(state) == [f"network.{key}" for key in network.state_dict()]
    network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_works_on_its_own(copied) -> None:
    shared = dropped("resnet20").eval()
    answers = shared(inputs())
    other = copied(shared)
    assert torch.equal(other(inputs()), answers)
    other.current.member, other.current.examples = 2, 3
    torch.nn.init.zeros_(other.network.head.weight)
    assert shared.current.member is None
    assert torch.equal(shared(inputs()), answers)
    # The copy's hooks look at the copy's state: the plain network inside is now sample 2.
    other.network.head = shared.network.head
    torch.testing.assert_close(other.network(inputs(3)), shared(inputs(3))[2])
    assert torch.equal(shared(inputs()), answers)


def test_nothing_of_a_failed_pass_is_left() -> None:
    shared = dropped("mlp").eval()
    answers = shared(inputs())
    with pytest.raises(RuntimeError):
        shared(torch.rand(2, 5))
    assert (shared.current.member, shared.current.examples) == (None, 1)
    assert torch.equal(shared(inputs()), answers)


def test_it_runs_on_the_meta_device() -> None:
    shared = dropped("resnet20").eval()
    shared(inputs())
    assert copy.deepcopy(shared).to("meta")(inputs().to("meta")).shape == (3, 4, 10)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [-0.1, 1, 1.5, float("nan"), "half"])
def test_a_probability_outside_its_limits_is_refused(probability) -> None:
    with pytest.raises(SettingsError, match="probability"):
        dropped("mlp", probability=probability)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "members 0 must be at least 1"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"output": "4"}, "unknown output layer '4'.*Known: 1, 3, 5"),
        ({"output": 5}, "unknown output layer"),
    ],
)
def test_settings_outside_their_limits_are_refused_before_the_network_is_touched(options, message: str) -> None:
    network = plain("mlp")
    with pytest.raises(SettingsError, match=message):
        with_dropout(network, **{"members": 2, "output": "5", **options})
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_of_one_layer_is_refused() -> None:
    with pytest.raises(NetworkError, match="no layer but its output layer '1'"):
        with_dropout(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 2, output="1")


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_that_is_not_in_the_first_dimension_is_refused(training: bool) -> None:
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.up(x.transpose(0, 1)).mean(dim=0))

    shared = with_dropout(TimeFirst(), 2, output="last").train(training)
    with pytest.raises(NetworkError, match="layer 'up' turns a batch of 3 into 5 rows"):
        shared(torch.rand(3, 5, 4))
