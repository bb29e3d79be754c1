"""What a network is built from, as it is saved and read back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from structured_ensembles.errors import SettingsError
from structured_ensembles.networks._arguments import integer, number
from structured_ensembles.options.plans import Scalar

MOST_CLASSES = 100_000
MOST_CHANNELS = 1024
LONGEST_SIDE = 4096
LONGEST_TEXT = 200
MOST_ARGUMENTS = 32
LARGEST_FLOAT = sys.float_info.max
REQUIRED = ("name", "input_shape", "classes")


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that `build` needs to build a network again.

    Attributes:
        name: Of the architecture: one of `names()`, ``torchvision:NAME`` or ``timm:NAME``.
        input_shape: (C, H, W) of one image.
        classes: K.
        arguments: Of the architecture.
        mean: C numbers that are subtracted from the pixels; None for networks that take the pixels as they are.
        std: C numbers that they are divided by; given with ``mean`` or not at all.

    Raises:
        SettingsError: A value is of another type, or outside its limits.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    arguments: Mapping[str, Scalar] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        integer("classes", self.classes, 1, MOST_CLASSES)
        shape = _checked_shape(self.input_shape)
        checked = {
            "name": _checked_text("name", self.name),
            "input_shape": shape,
            "arguments": checked_arguments(self.arguments),
            "mean": _checked_statistics("mean", self.mean, shape[0], low=-1e6),
            "std": _checked_statistics("std", self.std, shape[0], low=1e-6),
        }
        if (self.mean is None) != (self.std is None):
            raise SettingsError("mean and std must be given together, or neither.")
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # a frozen dataclass leaves no other way

    def to_json(self) -> dict[str, object]:
        """The attributes as what ``json.dumps`` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> NetworkSpec:
        """Read what `to_json` gave, as ``json.loads`` returns it; nothing about it is trusted.

        Raises:
            SettingsError: A key is missing or unknown, or a value is not what it should be.
        """
        if not isinstance(value, Mapping):
            raise SettingsError(f"the description of a network must be a JSON object, not a {type(value).__name__}.")
        known = [attribute.name for attribute in fields(cls)]
        surplus = [repr(str(key)[:LONGEST_TEXT]) for key in value if key not in known]
        missing = [repr(key) for key in REQUIRED if key not in value]
        if surplus or missing:
            raise SettingsError(
                f"the description of a network has unknown keys: {', '.join(surplus) or 'none'}; "
                f"missing keys: {', '.join(missing) or 'none'}. Its keys are {', '.join(known)}."
            )
        attributes: dict[str, Any] = dict(value)  # every type is checked by __post_init__
        return cls(**attributes)


def _checked_shape(value: object) -> tuple[int, int, int]:
    """(C, H, W), if ``value`` is that."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise SettingsError("input_shape must be three whole numbers: channels, height and width.")
    channels, height, width = value
    return (
        integer("the number of channels in input_shape", channels, 1, MOST_CHANNELS),
        integer("the height in input_shape", height, 1, LONGEST_SIDE),
        integer("the width in input_shape", width, 1, LONGEST_SIDE),
    )


def checked_arguments(value: object) -> dict[str, Scalar]:
    """A copy of ``value``, if it maps names to JSON scalars.

    Raises:
        SettingsError: It does not.
    """
    if not isinstance(value, Mapping) or len(value) > MOST_ARGUMENTS:
        raise SettingsError(f"arguments must map at most {MOST_ARGUMENTS} names to values.")
    return {_checked_text("the name of an argument", name): _checked_scalar(name, value[name]) for name in value}


def _checked_scalar(name: str, value: object) -> Scalar:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _checked_text(f"argument {name}", value)
    if isinstance(value, int):
        return integer(f"argument {name}", value, -(2**63), 2**63 - 1)
    return number(f"argument {name}", value, -LARGEST_FLOAT, LARGEST_FLOAT)


def _checked_statistics(name: str, value: object, channels: int, low: float) -> tuple[float, ...] | None:
    """One number per channel, or None."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != channels:
        raise SettingsError(f"{name} must be one number for each of the {channels} channels.")
    return tuple(number(f"each {name}", entry, low, 1e6) for entry in value)


def _checked_text(name: str, value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_TEXT or not value.isprintable():
        raise SettingsError(f"{name} must be a printable text of 1 to {LONGEST_TEXT} characters.")
    return str(value)  # a Choice becomes the plain text that it stands for
