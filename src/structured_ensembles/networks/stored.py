"""Whether a network is all in its ``state_dict``: what is not there is lost when it is saved, and nobody sees it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from structured_ensembles.errors import NetworkError, first_line
from structured_ensembles.networks import modules
from structured_ensembles.networks.modules import draw, in_mode

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
        make: Makes another one; or copies one that was given, which must be all in its ``state_dict``.
        example: Inputs (B, ...), on the network's device.

    Raises:
        NetworkError: Naming what of it is not stored.
    """
    if isinstance(make, partial) and make.func is copy.deepcopy:  # one module: its copies are always alike
        _check_whole(network, example)
    drawn = draw(make, _OTHER_SEED)
    if drawn is network:
        raise NetworkError(
            "what should make the network gives the same one each time, and members must not be one network: give a "
            f"function that makes a new one, the class {type(network).__name__}, or the network itself"
        )
    other = drawn.to(example.device)
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


def _check_whole(module: nn.Module, example: Tensor) -> None:
    """Refuse one module whose answers depend on tensors that are not in its ``state_dict``.

    Of what makes a network, `check_stored` sees whether it makes the same tensors each time; of one module nobody does.

    Args:
        module: It answers for the example, and is left as it is.
        example: Inputs (B, ...), on the module's device.

    Raises:
        NetworkError: Naming the tensors.
    """
    other = modules.copied(module, {})
    for _, owner, name in list(_unstored(other)):
        setattr(owner, name, _disturbed(getattr(owner, name)))
    with torch.no_grad(), in_mode(module, training=False), in_mode(other, training=False):
        answer, again = module(example), module(example)
        same = not torch.equal(answer, again) or _answers(other, example, answer)
    if not same:
        raise NetworkError(
            f"the network holds values that are not in its state_dict{_named(module)}, and may hold others when it is "
            "made anew and loaded: keep them with register_buffer (persistent, as it is unless told otherwise); or, if "
            f"they are always the same, give the class {type(module).__name__} or a function instead of one network"
        )


def _disturbed(values: Tensor) -> Tensor:
    """Other values of that kind; indices stay within their range."""
    continuous = values.is_floating_point() or values.is_complex()
    return values + 1 if continuous else values.flatten().roll(1).view_as(values)


def _answers(network: nn.Module, example: Tensor, answer: Tensor) -> bool:
    try:
        return torch.equal(network(example), answer)
    except Exception:  # noqa: BLE001 (whatever it says: what was disturbed is needed)
        return False


def _named(network: nn.Module) -> str:
    names = sorted(name for name, _, _ in _unstored(network))
    return f", such as {', '.join(names[:3])}" if names else ""


def _unstored(network: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Tensors that are no part of the state: the whole name, the module that holds it, and its name there."""
    for prefix, module in network.named_modules():
        names = [name for name, value in vars(module).items() if isinstance(value, Tensor)]
        for name in (*names, *module._non_persistent_buffers_set):
            if isinstance(getattr(module, name), Tensor):
                yield f"{prefix}.{name}" if prefix else name, module, name
