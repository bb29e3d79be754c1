"""What a network costs: parameters, buffers, bytes, operations, time."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from structured_ensembles.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Cost:
    """What one predictor costs, all of its members together.

    Attributes:
        parameters: Trainable and frozen ones, elements.
        buffers: Elements, such as the running statistics of normalisation layers.
        bytes_on_disk: Size of the file as stored.
        flops: Floating-point operations to predict ONE image; a multiply-add is two.
        seconds: Wall-clock time that fitting took; None where nothing was fitted.
    """

    parameters: int
    buffers: int
    bytes_on_disk: int
    flops: int
    seconds: float | None


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
