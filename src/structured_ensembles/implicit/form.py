"""By what name and with what numbers a network is made to answer M times: what a file stores of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from torch import nn

from structured_ensembles.errors import NetworkError, SettingsError, unknown
from structured_ensembles.implicit.dropout import with_dropout
from structured_ensembles.implicit.mimo import mimo
from structured_ensembles.implicit.rank_one import with_rank_one_factors
from structured_ensembles.implicit.torch_uncertainty import masksembles, packed
from structured_ensembles.networks import Given, NetworkSpec
from structured_ensembles.networks.given import architecture
from structured_ensembles.networks.spec import checked_arguments
from structured_ensembles.options.plans import Scalar

MOST_ANSWERS = 1024
"""M, at most: a small file must not ask for a huge network."""


Maker: TypeAlias = "Callable[[Given, int, Mapping[str, Any]], nn.Module]"
"""Makes a network that answers M times from what makes a plain one, M, and the arguments of a form."""


@dataclass(frozen=True)
class Form:
    """How one network is made to answer M times.

    Attributes:
        name: One of `FORMS`.
        arguments: Of that form.

    Raises:
        SettingsError: The name is unknown, or an argument is no JSON scalar.
    """

    name: str
    arguments: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in FORMS:
            raise unknown("form of a shared network", str(self.name), FORMS)
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
    return FORMS[form.name](given, members, form.arguments)


def _converted(convert: Callable[..., nn.Module]) -> Maker:
    """What brings any network into a form."""
    return lambda given, members, arguments: convert(architecture(given)(), members, **arguments)


def _mimo(given: Given, members: int, arguments: Mapping[str, Any]) -> nn.Module:
    if not isinstance(given, NetworkSpec):
        raise NetworkError(
            "mimo rebuilds the network with M times the inputs and outputs, which takes an architecture by name: give "
            "a NetworkSpec, such as NetworkSpec('resnet20', (3, 32, 32), 10)"
        )
    return mimo(given, members, **arguments)


FORMS: Mapping[str, Maker] = {
    "dropout": _converted(with_dropout),
    "rank_one": _converted(with_rank_one_factors),
    "packed": _converted(packed),
    "masked": _converted(masksembles),
    "mimo": _mimo,
}
"""What makes a network of each form."""
