"""Memory: the bytes that are really needed to serve every task learned so far, counted alike for all strategies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
from torch import Tensor

Served: TypeAlias = Mapping[str, Mapping[str, Tensor]]
"""By part of `Memory`, what must be stored to answer for all tasks: tensors by name, packed bits as uint8."""


@dataclass(frozen=True)
class Memory:
    """Bytes to serve all tasks learned so far.

    Attributes:
        shared: Weights of backbones, and whatever tasks adapt them with.
        normalisation: Parameters and statistics of normalisation layers.
        masks: What tells the tasks apart: owners of channels or weights, masks.
        heads: The tasks' own heads.
        data: Examples kept to learn from again; no prediction needs them, but the next task does.
    """

    shared: int = 0
    normalisation: int = 0
    masks: int = 0
    heads: int = 0
    data: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, part.name) for part in fields(self))


def measured(served: Served) -> Memory:
    """The bytes of what is served; parts that it does not name take none."""
    return Memory(**{part: sum(tensor.nbytes for tensor in tensors.values()) for part, tensors in served.items()})


def owner_bits(tasks: int) -> int:
    """Bits that tell the owners of T tasks and "nobody" apart: the ceiling of log2(T + 1)."""
    return tasks.bit_length()


def packed(values: Tensor, bits: int) -> Tensor:
    """Whole numbers below 2**bits, (N,), as a bit stream: uint8 of length ceil(N * bits / 8)."""
    weights = torch.arange(bits, device=values.device)
    stream = ((values.flatten().long()[:, None] >> weights) & 1).flatten()
    stream = torch.nn.functional.pad(stream, (0, -len(stream) % 8)).view(-1, 8)
    return (stream << torch.arange(8, device=values.device)).sum(dim=1).to(torch.uint8)
