"""Bytes that serving takes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from structured_ensembles.continual.learner.memory import Memory, measured, owner_bits, packed

from ..learners import unpacked


@given(st.integers(1, 12).flatmap(lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1)))))
def test_packing_takes_as_few_bytes_as_there_are_bits_and_can_be_undone(case):
    bits, values = case
    stream = packed(torch.tensor(values, dtype=torch.int64), bits)
    assert stream.dtype is torch.uint8
    assert len(stream) == -(-len(values) * bits // 8)
    assert unpacked(stream, bits, len(values)).tolist() == values


def test_bits_are_packed_from_the_lowest():
    assert packed(torch.tensor([1, 0, 1, 1]), 1).tolist() == [0b1101]
    assert packed(torch.tensor([5, 2]), 4).tolist() == [0x25]
    assert packed(torch.tensor([True] * 9), 1).tolist() == [255, 1]


@pytest.mark.parametrize("tasks", range(1, 70))
def test_owners_take_as_many_bits_as_tell_them_and_nobody_apart(tasks):
    bits = owner_bits(tasks)
    assert 2**bits >= tasks + 1 > 2 ** (bits - 1)


def test_published_numbers_of_half_vgg11():
    channels = 32 + 64 + 2 * 128 + 4 * 256
    one_task = packed(torch.ones(channels), 1)
    assert len(one_task) == channels / 8 == 172
    assert len(packed(torch.zeros(channels), owner_bits(10))) == 688


def test_memory_is_a_file_less_its_header():
    served = {
        "shared": {"a": torch.rand(3, 5), "b": torch.rand(7).half()},
        "masks": {"owners": packed(torch.ones(13), 3)},
        "heads": {"0.weight": torch.rand(2, 5), "0.bias": torch.rand(2)},
    }
    memory = measured(served)
    assert memory == Memory(shared=60 + 14, masks=5, heads=40 + 8)
    file = save({f"{part}.{name}": tensor for part, tensors in served.items() for name, tensor in tensors.items()})
    assert memory.total == len(file) - 8 - int.from_bytes(file[:8], "little")
