"""Sizes: what a network weighs and computes, and what a user says that an ensemble may."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.types import Choice

if TYPE_CHECKING:
    from collections.abc import Iterator


class Unit(Choice):
    """In what a budget is counted."""

    BYTES = "bytes"
    """Of the artefact on disk."""
    PARAMETERS = "parameters"
    """Of all members together."""
    FLOPS = "flops"
    """To predict one image with all members, a multiply-add as two."""


_UNITS = {
    "": Unit.BYTES,
    "b": Unit.BYTES,
    "bytes": Unit.BYTES,
    "params": Unit.PARAMETERS,
    "parameters": Unit.PARAMETERS,
}
_UNITS |= {"flop": Unit.FLOPS, "flops": Unit.FLOPS}
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_PATTERN = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<prefix>[kmg]?)(?P<unit>[a-z]*)")
_RELATIVE = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*x\s*(?P<unit>[a-z]*)")


@dataclass(frozen=True)
class Budget:
    """What the whole ensemble may cost.

    Attributes:
        amount: Above 0.
        unit: What is counted.
        relative: Whether the amount is a multiple of what the base network costs.
    """

    amount: float
    unit: Unit = Unit.BYTES
    relative: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.amount < float("inf"):
            raise SettingsError(f"a budget of {self.amount} must be above 0")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``1x`` (of the base network's bytes), ``0.5x params``, ``2 MB``, ``280k params``, ``50 MFLOPs``.

        Raises:
            SettingsError: If it is none of those.
        """
        lower = text.strip().lower()
        relative = _RELATIVE.fullmatch(lower)
        found = relative or _PATTERN.fullmatch(lower)
        if not found or found["unit"] not in _UNITS or (not relative and not (found["unit"])):
            raise SettingsError(
                f"budget {text!r} is not understood: write 1x (the bytes of one network), 0.5x params, 2MB, "
                "280k params or 50MFLOPs"
            )
        scale = 1 if relative else _PREFIXES[found["prefix"]]
        return cls(float(found["number"]) * scale, _UNITS[found["unit"]], relative=relative is not None)

    def limit(self, base: int) -> int:
        """The largest whole number within the budget.

        Args:
            base: What the base network costs, in this budget's unit.
        """
        return int(self.amount * base) if self.relative else int(self.amount)


def parameters(module: nn.Module) -> int:
    """Elements of all parameters, trainable or not; a shared one counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def buffers(module: nn.Module) -> int:
    """Elements of all buffers, stored with the module or not; a shared one counts once."""
    return sum(buffer.numel() for buffer in module.buffers())


def flops(module: nn.Module, example: Tensor) -> int:
    """Floating-point operations of one prediction, in evaluation mode.

    Counted are matrix products and convolutions, a multiply-add as two operations, attention included; additions of
    biases, activations, pooling and normalisation are not, nor are fused recurrent layers (LSTM, GRU). Training flags,
    buffers and random state stay as they were.

    Args:
        module: On the device of ``example``.
        example: (1, C, H, W), or whatever else the module takes, for one image.

    Raises:
        DataError: ``example`` is not a batch of one.
    """
    if example.dim() == 0 or len(example) != 1:
        raise DataError(f"an example of shape {tuple(example.shape)}: operations are counted for one image, pass x[:1]")
    counter = FlopCounterMode(display=False)
    copies = {name: buffer.clone() for name, buffer in module.named_buffers()}
    devices = [example.device] if example.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices), _evaluating(module), _countable_attention(), counter:
        functional_call(module, copies, (example,))
    return counter.get_total_flops()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards each submodule has its own training flag again."""
    flags = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, flag in flags.items():
            part.training = flag


@contextmanager
def _countable_attention() -> Iterator[None]:
    """Attention as plain matrix products: the counter has no formula for the fused kernels and would skip a third."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
