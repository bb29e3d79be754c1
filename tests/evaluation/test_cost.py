from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation import buffers, flops, parameters


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


def test_parameters_and_buffers_are_counted_by_element():
    module = network()
    module[0].requires_grad_(requires_grad=False)
    assert parameters(module) == (8 * 3 * 9 + 8) + 2 * 8 + (512 * 10 + 10)
    assert buffers(module) == 8 + 8 + 1
    assert parameters(nn.Sequential(shared := nn.Linear(4, 4), shared)) == 4 * 4 + 4


@settings(max_examples=25, deadline=None)
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
