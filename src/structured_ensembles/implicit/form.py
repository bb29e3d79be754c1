"""By what name and with what numbers a network is made to answer M times: what a file stores of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from torch import nn

from structured_ensembles.errors import SettingsError
from structured_ensembles.networks import Given
from structured_ensembles.networks.spec import checked_arguments
from structured_ensembles.options.catalogue import FORMS
from structured_ensembles.options.plans import Scalar

MOST_ANSWERS = 1024
"""M, at most: a small file must not ask for a huge network."""


@dataclass(frozen=True)
class Form:
    """How one network is made to answer M times.

    Attributes:
        name: Of the catalogue's forms.
        arguments: Of that form.

    Raises:
        SettingsError: The name is unknown, or an argument is no JSON scalar.
    """

    name: str
    arguments: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        FORMS.check(self.name)
        object.__setattr__(self, "arguments", checked_arguments(self.arguments))

    def to_json(self) -> dict[str, object]:
        """The attributes as what ``json.dumps`` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Form:
        """Read what `to_json` gave; nothing about it is trusted.

        Raises:
            SettingsError: It is not the description of a form.
        """
        if not isinstance(value, dict) or set(value) != {"name", "arguments"} or not isinstance(value["name"], str):
            raise SettingsError("the form of a shared network must be a JSON object with a name and arguments.")
        return cls(**value)


def make(given: Given, form: Form, members: int) -> nn.Module:
    """A freshly initialised network that answers M times, drawn from torch's global generator.

    Raises:
        NetworkError: The base network cannot be brought into this form; the message says why.
        SettingsError: An argument is outside its limits, or the form needs a library.
    """
    if not 1 <= members <= MOST_ANSWERS:
        raise SettingsError(f"members {members} must be from 1 to {MOST_ANSWERS} where weights are shared")
    made: nn.Module = FORMS[form.name](given, members, **form.arguments)
    return made
