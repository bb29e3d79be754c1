"""Whether a network is all in its ``state_dict``: what is not there is lost when it is saved, and nobody sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from structured_ensembles.errors import NetworkError, first_line
from structured_ensembles.extraction import draw
from structured_ensembles.sizes import in_mode

_OTHER_SEED = 2**31 - 1
"""Of the second draw: unlike that of any fit, so that what is not stored differs."""


def check_initialised(network: nn.Module) -> None:
    """Refuse layers that have no weights yet.

    Raises:
        NetworkError: Naming the first.
    """
    for name, module in network.named_modules():
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            raise NetworkError(
                f"layer {name!r} is lazy and has no weights yet: say how many inputs it has, or run the network once "
                "on an example before it is given away"
            )


def check_stored(network: nn.Module, make: Callable[[], nn.Module], example: Tensor) -> None:
    """Refuse a network that, made anew and filled with the same ``state_dict``, answers otherwise.

    Args:
        network: What was made; it answers for the example.
        make: Makes another one.
        example: Inputs (B, ...), on the network's device.

    Raises:
        NetworkError: Naming what of it is not stored.
    """
    other = draw(make, _OTHER_SEED).to(example.device)
    try:
        other.load_state_dict(network.state_dict())
    except RuntimeError as error:
        raise NetworkError(
            f"made twice, the network is not the same ({first_line(error)}): it must have the same layers, of the same "
            "sizes, every time, or it could not be loaded"
        ) from error
    with torch.no_grad(), in_mode(network, training=False), in_mode(other, training=False):
        answer, again, restored = network(example), network(example), other(example)
    if torch.equal(answer, again) and not torch.allclose(answer, restored, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise NetworkError(
            "the network would answer otherwise when it is loaded, because it draws values that are not in its "
            f"state_dict{_named(network)}: keep them with register_buffer (persistent, as it is unless told otherwise)"
        )


def _named(network: nn.Module) -> str:
    names = sorted(_unstored(network))
    return f", such as {', '.join(names[:3])}" if names else ""


def _unstored(network: nn.Module) -> Iterator[str]:
    """Names of tensors that are no part of the state."""
    for prefix, module in network.named_modules():
        names = [name for name, value in vars(module).items() if isinstance(value, Tensor)]
        for name in (*names, *module._non_persistent_buffers_set):
            yield f"{prefix}.{name}" if prefix else name
