"""Sizes: what a network weighs and computes, and what a user says that an ensemble may."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
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
    **dict.fromkeys(("b", "byte", "bytes"), Unit.BYTES),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), Unit.PARAMETERS),
    **dict.fromkeys(("flop", "flops"), Unit.FLOPS),
}
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BUDGET = re.compile(r"(?P<number>\d{1,18}(\.\d{0,18})?|\.\d{1,18})\s*(?P<scale>[kmgx]?)\s*(?P<unit>[a-z]*)", re.ASCII)


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
        object.__setattr__(self, "unit", Unit.named(self.unit))
        # 1 and 1.0 are one budget, also where a fit is told from another by how it is written.
        object.__setattr__(self, "amount", float(self.amount))
        if not 0 < self.amount < float("inf"):
            raise SettingsError(f"a budget of {self.amount} must be above 0 and finite")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``1x`` (of the base network's bytes), ``0.5x params``, ``2 MB``, ``280k params``, ``50 MFLOPs``.

        Prefixes are decimal: a kB is 1,000 bytes.

        Raises:
            SettingsError: If it is none of those, or not above 0.
        """
        found = _BUDGET.fullmatch(text.strip().lower())
        number, scale, unit = found.group("number", "scale", "unit") if found else ("", "", "")
        relative = scale == "x"
        if relative and not unit:
            unit = "bytes"
        if unit not in _UNITS:
            raise SettingsError(
                f"budget {text!r} is not understood: write 1x (the bytes of one network), 0.5x params, 2MB, "
                "280k params or 50MFLOPs"
            )
        # Exact decimals: 2.01 * 10**6 is 2009999.9999999998 in floating point.
        amount = Fraction(number) * (1 if relative else _PREFIXES[scale])
        return cls(float(amount), _UNITS[unit], relative=relative)

    def limit(self, base: int) -> int:
        """The largest whole number within the budget.

        Args:
            base: What the base network costs, in this budget's unit.
        """
        # The decimal that was written, not its nearest float: 0.29 of 100 is 29.
        amount = Fraction(str(self.amount))
        return int(amount * base) if self.relative else int(amount)


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
    return _counted(module, example, training=False)


def training_flops(module: nn.Module, examples: Tensor) -> float:
    """Floating-point operations of one step of training, for each example, counted like those of `flops`.

    A backward pass counts as two forward ones: one for the gradients of the weights, one for those of the inputs.

    Args:
        module: On the device of ``examples``; it is left as it was.
        examples: (B, ...), at least 2, for normalisation.
    """
    return 3 * _counted(module, examples, training=True) / len(examples)


def _counted(module: nn.Module, examples: Tensor, *, training: bool) -> int:
    counter = FlopCounterMode(display=False)
    with _countable_attention(), counter:
        run_once(module, examples, training=training)
    return counter.get_total_flops()


def run_once(module: nn.Module, examples: Tensor, *, training: bool) -> None:
    """One forward pass without gradients that leaves flags, buffers and random state as they were."""
    copies = {name: buffer.clone() for name, buffer in module.named_buffers()}
    devices = [examples.device] if examples.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices), in_mode(module, training=training):
        functional_call(module, copies, (examples,))


@contextmanager
def in_mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode inside; afterwards each submodule has its own training flag again."""
    flags = {part: part.training for part in module.modules()}
    module.train(training)
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
