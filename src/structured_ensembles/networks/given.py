"""What a user may give where a network is wanted, and the one way from there to networks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from torch import nn

from structured_ensembles.errors import SettingsError
from structured_ensembles.networks import registry
from structured_ensembles.networks.spec import NetworkSpec
from structured_ensembles.types import Architecture

Given: TypeAlias = "NetworkSpec | Architecture | nn.Module"
"""What makes a network: its name and arguments, a factory (a class will do), or one untrained network."""


def architecture(given: Given, build: Callable[[NetworkSpec], nn.Module] = registry.build) -> Architecture:
    """What makes the network that is given, a new one each time; it can be pickled if ``given`` can.

    Args:
        given: Anything may come.
        build: Makes what a name and its arguments stand for.

    Raises:
        SettingsError: It makes no network.
    """
    if isinstance(given, NetworkSpec):
        return partial(build, given)
    if isinstance(given, nn.Module):
        return partial(copy.deepcopy, given)
    if isinstance(given, Callable):  # type: ignore[arg-type]
        return given
    raise SettingsError(f"a network must be a module, its class or another factory, not {type(given).__name__}")


def check_drawable(what: str, given: Given) -> None:
    """Refuse one module where every member is drawn afresh.

    Raises:
        SettingsError: It is one; the message says what to give instead.
    """
    if isinstance(given, nn.Module):
        raise SettingsError(
            f"{what} draws each member afresh: give the class {type(given).__name__} or a function that makes the "
            "network, not one network"
        )


def converted(convert: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """From a function of a network, one of whatever makes it; its other arguments stay."""
    return lambda given, *arguments, **named: convert(architecture(given)(), *arguments, **named)
