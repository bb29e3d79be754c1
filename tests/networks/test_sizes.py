from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.networks.sizes import COUNTED, Cost, buffers, cost, flops, parameters
from structured_ensembles.options.budget import Budget, Unit

B, P, F = Unit.BYTES, Unit.PARAMETERS, Unit.FLOPS


class Restless(nn.Module):
    """Writes to a buffer and draws random numbers in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x + torch.rand_like(x))


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))


# --- budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "amount", "unit", "relative"),
    [
        ("1x", 1, B, True),
        ("1 x", 1, B, True),
        ("0.5x params", 0.5, P, True),
        (".5xparams", 0.5, P, True),
        ("2x FLOPs", 2, F, True),
        ("1.x bytes", 1, B, True),
        ("2MB", 2_000_000, B, False),
        ("2 MB", 2_000_000, B, False),
        ("2.01 mb", 2_010_000, B, False),
        ("512b", 512, B, False),
        ("1 byte", 1, B, False),
        ("3 GB", 3_000_000_000, B, False),
        ("280k params", 280_000, P, False),
        ("280kparams", 280_000, P, False),
        ("280 K parameters", 280_000, P, False),
        ("1 param", 1, P, False),
        ("50MFLOPs", 50_000_000, F, False),
        ("  50 M flop  ", 50_000_000, F, False),
    ],
)
def test_budgets_that_are_understood(text, amount, unit, relative):
    assert Budget.parse(text) == Budget(amount, unit, relative=relative)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100",
        "2M",
        "x",
        "x params",
        "one x",
        "1e6 params",
        "1,000 params",
        "1_000 params",
        "-1x",
        "+1x",
        "2MiB",
        "1xx",
        "1x MB",
        "5 bananas",
        "1/2x",
        "2 MB MB",
        "\u0661x",
        "inf x",
        "nan x",
        "1.2.3x",
        ".x",
        "1 2x",
        "9" * 400 + "x",
        "1." + "1" * 5000 + "x",
    ],
)
def test_budgets_that_are_not_understood_are_answered_with_examples(text):
    with pytest.raises(
        SettingsError, match=r"is not understood: write 1x .*, 0\.5x params, 2MB, 280k params or 50MFLOPs"
    ):
        Budget.parse(text)


@given(st.text(max_size=12))
def test_any_text_is_a_budget_or_a_settings_error(text):
    with contextlib.suppress(SettingsError):
        assert Budget.parse(text).amount > 0


@pytest.mark.parametrize("text", ["0x", "0.0 MB"])
def test_a_budget_of_nothing_is_refused(text):
    with pytest.raises(SettingsError, match=r"a budget of 0\.0 must be above 0"):
        Budget.parse(text)


@pytest.mark.parametrize("amount", [0, -1, float("inf"), float("nan")])
def test_amounts_outside_their_limits_are_refused(amount):
    with pytest.raises(SettingsError, match=f"a budget of {float(amount)} must be above 0 and finite"):
        Budget(amount)


@given(st.integers(1, 10**6), st.integers(0, 10**9))
def test_limits_are_exact_in_decimals(hundredths, base):
    text = f"{hundredths // 100}.{hundredths % 100:02}"
    assert Budget.parse(f"{text}x").limit(base) == hundredths * base // 100
    assert Budget.parse(f"{text} MB").limit(base) == hundredths * 10_000


def test_an_absolute_limit_is_rounded_down():
    assert Budget(2.9).limit(1000) == 2
    assert Budget(0.29, relative=True).limit(100) == 29  # 28.999999999999996 in floating point


# --- what a network weighs and computes -----------------------------------------------------------------------------


def test_parameters_and_buffers_are_counted_by_element():
    module = network()
    module[0].requires_grad_(requires_grad=False)
    assert parameters(module) == (8 * 3 * 9 + 8) + 2 * 8 + (512 * 10 + 10)
    assert buffers(module) == 8 + 8 + 1
    assert parameters(nn.Sequential(shared := nn.Linear(4, 4), shared)) == 4 * 4 + 4


def test_every_unit_of_a_budget_is_counted():
    assert {*Unit} <= {*COUNTED} == {field.name for field in dataclasses.fields(Cost)}
    found = cost(network(), torch.zeros(1, 3, 8, 8))
    assert found.in_unit(Unit.PARAMETERS) == found.parameters == parameters(network())
    assert found.in_unit(Unit.FLOPS) == found.flops == flops(network(), torch.zeros(1, 3, 8, 8))
    # the one buffer that is not float32 counts the batches, in int64
    assert found.in_unit(Unit.BYTES) == 4 * (found.parameters + found.buffers - 1) + 8


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(3, 9), st.booleans())
def test_a_convolution_is_two_operations_per_multiply_add(inputs, outputs, size, bias):
    module = nn.Conv2d(inputs, outputs, 3, bias=bias)
    multiply_adds = (size - 2) ** 2 * outputs * inputs * 9
    assert flops(module, torch.zeros(1, inputs, size, size)) == 2 * multiply_adds


def test_operations_of_a_network_are_those_of_its_layers():
    assert flops(network(), torch.zeros(1, 3, 8, 8)) == 2 * 8 * 8 * 8 * 3 * 9 + 2 * 512 * 10


@pytest.mark.parametrize("frozen", [False, True])
def test_attention_is_counted_whole_although_fused_kernels_exist(frozen):
    tokens, width = 6, 8
    layer = nn.TransformerEncoderLayer(width, nhead=2, dim_feedforward=16, batch_first=True)
    layer.requires_grad_(requires_grad=not frozen)
    projections, mlp, attention = 4 * width * width, 2 * width * 16, 2 * tokens * width
    assert flops(layer, torch.zeros(1, tokens, width)) == 2 * tokens * (projections + mlp + attention)
    assert torch.backends.mha.get_fastpath_enabled()


def test_counting_changes_nothing():
    module = nn.Sequential(Restless(), nn.Dropout(), nn.BatchNorm1d(2))
    module.train()
    module[1].eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    buffer, randomness = module[0].calls, torch.get_rng_state()
    assert flops(module, torch.zeros(1, 3)) == 2 * 3 * 2
    assert [part.training for part in module] == [True, False, True]
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert module[0].calls is buffer
    assert torch.equal(torch.get_rng_state(), randomness)


def test_a_network_that_fails_keeps_its_training_flag():
    module = network()
    with pytest.raises(RuntimeError):
        flops(module, torch.zeros(1, 4, 8, 8))
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("shape", [(), (0, 3, 8, 8), (2, 3, 8, 8)])
def test_a_batch_is_no_image(shape):
    with pytest.raises(DataError, match="counted for one image"):
        flops(network(), torch.zeros(shape))
