"""The architectures by name, and how a user adds one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from structured_ensembles.errors import NetworkError, SettingsError, unknown
from structured_ensembles.networks import external
from structured_ensembles.networks.normalised import Normalised
from structured_ensembles.networks.spec import NetworkSpec
from structured_ensembles.options.catalogue import ARCHITECTURES, LIBRARIES

Factory: TypeAlias = Callable[..., nn.Module]
"""``factory(input_shape, classes, **arguments)``: a freshly initialised network."""

register = ARCHITECTURES.register
"""Give an architecture a name: ``@register("my_net")`` above its factory.

The factory is called as ``factory(input_shape, classes, **arguments)`` with ``input_shape`` (C, H, W) and returns a
network from images (B, C, H, W) to logits (B, K). Its arguments are JSON scalars, which a saved file may hold: it
should check them.
"""


def build(spec: NetworkSpec) -> nn.Module:
    """Build a freshly initialised network, its weights drawn from torch's global generator; nothing is downloaded.

    Args:
        spec: What to build. With ``mean`` and ``std`` the network is `Normalised`.

    Returns:
        A network in training mode, from images (B, C, H, W) to logits (B, K).

    Raises:
        SettingsError: The name or an argument does not exist, an argument is out of its limits, or the library that
            the name asks for is not installed.
        NetworkError: The architecture cannot be built for such images.
    """
    network = _build_bare(spec)
    if spec.mean is None or spec.std is None:
        return network
    return Normalised(network, spec.mean, spec.std)


def _build_bare(spec: NetworkSpec) -> nn.Module:
    """The network without its normalisation."""
    if spec.name.startswith(tuple(f"{library}:" for library in LIBRARIES)):
        return external.build(spec)
    if spec.name not in ARCHITECTURES:
        known = unknown("architecture", spec.name, [*ARCHITECTURES, *(f"{library}:NAME" for library in LIBRARIES)])
        raise SettingsError(f"{known} One of your own: register it, on the command line by --plugin FILE.py.")
    factory: Factory = ARCHITECTURES[spec.name]
    _check_arguments(factory, spec)
    network = factory(spec.input_shape, spec.classes, **spec.arguments)
    if not isinstance(network, nn.Module):
        raise NetworkError(f"the factory of {spec.name!r} returned a {type(network).__name__}: return an nn.Module.")
    return network


def _check_arguments(factory: Factory, spec: NetworkSpec) -> None:
    """Refuse arguments that the factory does not take, and say which it takes."""
    signature = inspect.signature(factory)
    try:
        signature.bind(spec.input_shape, spec.classes, **spec.arguments)
    except TypeError as error:
        taken = ", ".join(list(signature.parameters)[2:]) or "none"
        raise SettingsError(f"architecture {spec.name!r}: {error}. Its arguments: {taken}.") from error
