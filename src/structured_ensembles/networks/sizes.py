"""Sizes: what a network weighs and computes, in every unit that a budget may be given in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from structured_ensembles.errors import DataError
from structured_ensembles.networks.modules import run_once


@dataclass(frozen=True)
class Cost:
    """What a predictor costs, all of its members together.

    Attributes:
        parameters: Elements, trainable and frozen ones.
        buffers: Elements, such as the running statistics of normalisation layers.
        bytes: Of its file.
        flops: Floating-point operations to predict ONE input; a multiply-add is two.
    """

    parameters: int
    buffers: int
    bytes: int
    flops: int

    def in_unit(self, unit: str) -> int:
        """The number of a budget's unit."""
        return int(getattr(self, unit))


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


COUNTED: Mapping[str, Callable[[nn.Module, Tensor], int]] = {
    "parameters": lambda network, _: parameters(network),
    "buffers": lambda network, _: buffers(network),
    "bytes": lambda network, _: sum(tensor.nbytes for tensor in network.state_dict().values()),
    "flops": flops,
}
"""By field of `Cost`, how a network is counted, beside an example for one input; its bytes are those of its tensors."""


def cost(network: nn.Module, example: Tensor) -> Cost:
    """What a network costs that is not in a file yet.

    Args:
        network: On the device of ``example``.
        example: (1, ...), what it takes for one input.
    """
    return Cost(**{unit: count(network, example) for unit, count in COUNTED.items()})


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
