"""A copy of a network that topology may take apart: random weights, evaluation mode, on the CPU."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from structured_ensembles.channels import kinds
from structured_ensembles.errors import NetworkError, first_line
from structured_ensembles.networks import modules
from structured_ensembles.networks.stored import check_initialised


@dataclass(frozen=True)
class Probe:
    """A copy of a network, and what it did with the example.

    Attributes:
        network: The copy.
        example: At most two inputs (B, ...), in the copy's precision.
        calls: Names of the modules with parameters of their own, in the order of their calls.
        output: (B, K).
    """

    network: nn.Module
    example: Tensor
    calls: tuple[str, ...]
    output: Tensor

    @property
    def idle(self) -> bool:
        """Whether some module with parameters was not called: training may call it."""
        return any(name not in self.calls for name, _ in _owners(self.network))


def make(network: nn.Module, example: Tensor) -> Probe:
    """Copy a network, in float64 unless its forward pass insists on float32, and run the copy once.

    Raises:
        NetworkError: It cannot be copied, run on the example or cut safely.
    """
    _refuse_unsupported(network)
    if example.dim() == 0 or len(example) == 0:
        raise NetworkError(f"the example must hold at least one input, (B, ...), but its shape is {_shape(example)}")
    try:
        return _run(network, example[:2], torch.float64)
    except NetworkError:
        return _run(network, example[:2], torch.float32)


def _refuse_unsupported(network: nn.Module) -> None:
    """Refuse what cannot be cut safely, naming the module."""
    check_initialised(network)
    for name, module in network.named_modules():
        own = {parameter for parameter, _ in module.named_parameters(recurse=False)}
        old = any(one.endswith("_orig") or (one.endswith("_g") and f"{one[:-1]}v" in own) for one in own)
        if parametrize.is_parametrized(module) or old:
            msg = f"layer {name!r} has a reparametrised weight (weight norm, spectral norm or pruning): remove it first"
            raise NetworkError(msg)
    seen: dict[int, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        first = seen.setdefault(id(parameter), name)
        if first != name:
            msg = f"parameters {first!r} and {name!r} are one tensor: shared weights cannot be cut"
            raise NetworkError(msg)


def _run(network: nn.Module, example: Tensor, dtype: torch.dtype) -> Probe:
    copied = _randomised(network, dtype)
    example = example.detach().cpu().to(dtype if example.is_floating_point() else example.dtype)
    calls: Counter[str] = Counter()
    try:
        with torch.no_grad(), ExitStack() as hooks:
            for name, module in _owners(copied):
                hooks.enter_context(module.register_forward_hook(lambda *_, name=name: calls.update([name])))
            output = copied(example)
    except Exception as error:
        msg = f"the network fails on an example input of shape {_shape(example)}: {first_line(error)}"
        raise NetworkError(msg) from error
    _refuse_output(output, len(example))
    _refuse_reuse(calls)
    _refuse_chance(copied, example, output)
    return Probe(copied, example, tuple(calls), output)


def _owners(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules with parameters of their own."""
    return [pair for pair in network.named_modules() if any(True for _ in pair[1].parameters(recurse=False))]


def _randomised(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy with random weights: networks that start with zeros would hide what depends on what."""
    generator = torch.Generator().manual_seed(0)
    # Handed to deepcopy as what it has copied already, so that the user's weights never are.
    drawn = {
        id(parameter): _drawn(parameter, dtype, generator)
        for parameter in network.parameters()
        if parameter.is_floating_point()
    }
    try:
        copied = modules.copied(network, drawn).to("cpu", dtype)
        copied.eval()
    except Exception as error:
        msg = f"the network cannot be copied ({first_line(error)}): a copy must be possible with copy.deepcopy"
        raise NetworkError(msg) from error
    for module in copied.modules():
        kind = kinds.of(module)
        for name, (low, high) in {} if kind is None else kind.statistics.items():
            if getattr(module, name) is not None:
                module.get_buffer(name).uniform_(low, high, generator=generator)
    return copied


def _drawn(parameter: Tensor, dtype: torch.dtype, generator: torch.Generator) -> nn.Parameter:
    """Weights that keep the size of what passes through ReLUs, biases and scales around one."""
    values = torch.empty(parameter.shape, dtype=dtype)
    if parameter.dim() < 2:
        return nn.Parameter(values.uniform_(0.5, 1.5, generator=generator))
    bound = (6 / max(1, parameter.shape[1:].numel())) ** 0.5
    return nn.Parameter(values.uniform_(-bound, bound, generator=generator))


def _refuse_output(output: object, batch: int) -> None:
    if isinstance(output, Tensor) and output.dim() == 2 and len(output) == batch and output.is_floating_point():
        return
    got = f"{_shape(output)} of {output.dtype}" if isinstance(output, Tensor) else type(output).__name__
    raise NetworkError(f"the network's output must be logits of shape (B, K) = ({batch}, K), but is {got}")


def _refuse_reuse(calls: Counter[str]) -> None:
    for name, count in calls.items():
        if count > 1:
            msg = f"module {name!r} is used {count} times in one pass: give each use a module of its own"
            raise NetworkError(msg)


def _refuse_chance(network: nn.Module, example: Tensor, output: Tensor) -> None:
    with torch.no_grad():
        again = network(example)
    if not torch.allclose(again, output, equal_nan=True):
        msg = "the network's output changes from one pass to the next in evaluation mode: is a dropout always on?"
        raise NetworkError(msg)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
