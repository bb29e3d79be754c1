"""A module as a thing: drawn, copied, run once, put in a mode, told from others."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from structured_ensembles.seeding import seeded
from structured_ensembles.types import Architecture


def of_weights(tensors: Mapping[str, Any]) -> str:
    """Of names, types, shapes and bits: tells one state of a network from any other."""
    found = hashlib.sha256()
    for name, tensor in ((name, value) for name, value in tensors.items() if isinstance(value, Tensor)):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def draw(architecture: Architecture, seed: int) -> nn.Module:
    """A freshly initialised network, whatever was drawn before."""
    with seeded(seed):
        return architecture()


def skeleton(network: nn.Module) -> nn.Module:
    """The same network without memory behind its tensors, to measure what cutting it would give."""
    return copied(network, {}).to("meta")


def copied(network: nn.Module, instead: Mapping[int, object]) -> nn.Module:
    """A deep copy, also of a network that keeps what it has computed: ``deepcopy`` refuses tensors with a history.

    Args:
        network: It is left as it is.
        instead: By ``id``, what stands in the copy for a tensor of the network.
    """
    kept = (value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor))
    computed = {id(tensor): tensor.detach().clone() for tensor in kept if tensor.grad_fn is not None}
    return copy.deepcopy(network, {**computed, **instead})


def put(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one that has a dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


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


def run_once(module: nn.Module, examples: Tensor, *, training: bool) -> None:
    """One forward pass without gradients that leaves flags, buffers and random state as they were."""
    copies = {name: buffer.clone() for name, buffer in module.named_buffers()}
    devices = [examples.device] if examples.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices), in_mode(module, training=training):
        functional_call(module, copies, (examples,))
