"""What an ensemble is made by: the structured one and what it is compared with, one file a method."""

from __future__ import annotations

from structured_ensembles.methods.fitting import Fittable
from structured_ensembles.networks import Given
from structured_ensembles.options.catalogue import METHODS
from structured_ensembles.options.ensemble import Settings


def make(name: str, base: Given, members: int = 4, settings: Settings | None = None) -> Fittable:
    """A method by its name, ready to be fitted.

    Args:
        name: Of the catalogue's methods.
        base: What makes the base network.
        members: M; ``single`` is one network, whatever it is.
        settings: Everything else; None takes the default preset for the network's family.

    Raises:
        SettingsError: There is no such method, or a setting is outside its limits.
    """
    count = () if name == "single" else (members,)
    fittable: Fittable = METHODS[name](base, *count, settings=settings)
    return fittable


register = METHODS.register
"""``@register("name")`` above a subclass of `fitting.Fittable` makes it a method, for `make` and for the command."""
