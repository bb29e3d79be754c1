"""What an artefact says beside its tensors: a record, as a type and as JSON that nobody vouches for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from structured_ensembles.errors import ArtefactError, StructensError
from structured_ensembles.files import plain
from structured_ensembles.files.plain import LARGEST, compact, require
from structured_ensembles.implicit import Form
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.options.choices import Combine
from structured_ensembles.types import Channels, Cut, Group, Side

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""What JSON can hold; sequences must be lists and mappings dicts, so that they are read back as they were."""

SUMMARY_BYTES = 2048
"""Room that every file reserves for its summary, so that its size is known before training."""

_KEYS = ("method", "members", "classes", "input_shape", "combine", "network", "form", "groups", "channels")
_LARGEST_INPUT, _MOST_DIMENSIONS = 2**28, 8


@dataclass(frozen=True, eq=False)
class Record:
    """Everything but the tensors.

    Attributes:
        method: What made the members: ``structured``, ``single``, ``deep``, ...
        members: M, how many answers there are.
        classes: K names.
        input_shape: Of one example, without the batch.
        combine: How the members' outputs become one prediction.
        network: What the members were cut from; None if whoever loads the file must pass the architecture.
        groups: Of the network's topology; ``private`` and ``scaled`` are not stored.
        channels: What each member keeps; empty if nothing was cut. A group that a member does not name is whole.
        form: If ONE network is stored, which answers M times, how it is made to; None stores M networks.
        summary: Training summary, measurements, rejection threshold; at most ``SUMMARY_BYTES`` once in the file.

    Raises:
        ArtefactError: The parts contradict each other, or the summary is not JSON or too long.
    """

    method: str
    members: int
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    combine: Combine
    network: NetworkSpec | None
    groups: tuple[Group, ...] = ()
    channels: tuple[Channels, ...] = ()
    form: Form | None = None
    summary: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def networks(self) -> int:
        """How many networks are stored."""
        return self.members if self.form is None else 1

    def __post_init__(self) -> None:
        require(1 <= self.members <= LARGEST, f"an ensemble has at least 1 member, not {self.members}.")
        require(len(self.classes) > 0, "an ensemble has at least one class.")
        require(
            _is_shape(self.input_shape),
            f"an example has at most {_MOST_DIMENSIONS} dimensions, all above 0, and {_LARGEST_INPUT} elements, not "
            f"{tuple(self.input_shape[: _MOST_DIMENSIONS + 1])}.",
        )
        if self.network is not None:
            described = (self.network.classes, tuple(self.network.input_shape))
            require(
                described == (len(self.classes), tuple(self.input_shape)),
                f"the network has {described[0]} classes and inputs {described[1]}, but the record has "
                f"{len(self.classes)} and {tuple(self.input_shape)}.",
            )
        _check_channels(self)
        summary_text(self.summary)


def _is_shape(sides: Sequence[int]) -> bool:
    return len(sides) <= _MOST_DIMENSIONS and min(sides, default=1) >= 1 and math.prod(sides) <= _LARGEST_INPUT


def _check_channels(record: Record) -> None:
    """Refuse kept channels that are not of the record's groups and members."""
    widths = {group.name: group.channels for group in record.groups}
    require(len(widths) == len(record.groups), "two groups have the same name.")
    require(record.form is None or not record.groups, "a network that answers M times has no kept channels.")
    given = len(record.channels)
    require(given in (0, record.members), f"kept channels of {given} members were given, not of {record.members}.")
    for member, kept in enumerate(record.channels):
        for name, index in kept.items():
            require(name in widths, f"member {member} keeps channels of a group {name!r}, which is not recorded.")
            require(
                _sorted_within(index, widths[name]),
                f"what member {member} keeps of group {name!r} must be at least one channel, sorted, int64, each once "
                f"and from 0 to {widths[name] - 1}.",
            )


def _sorted_within(index: Tensor, channels: int) -> bool:
    if index.dim() != 1 or len(index) == 0 or index.dtype != torch.int64:
        return False
    array = index.cpu().numpy()
    return bool(array[0] >= 0 and array[-1] < channels and (np.diff(array) > 0).all())


def summary_text(summary: Mapping[str, JSON]) -> str:
    """The summary as JSON, with as many spaces as fill its room once the header has escaped it."""
    try:
        text = compact(summary)
        same = json.loads(text) == summary
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtefactError(f"the summary is not JSON ({error}): use finite numbers, text, lists and dicts.") from error
    require(same, "the summary would be read back changed: use lists instead of tuples, and text as keys.")
    free = SUMMARY_BYTES - (len(json.dumps(text)) - 2)
    require(free >= 0, f"the summary is {-free} bytes longer than the {SUMMARY_BYTES} reserved for it: shorten it.")
    return text + " " * free


# --- the record as JSON ---------------------------------------------------------------------------------------------


def encode(record: Record) -> str:
    """The record without its summary; its length does not depend on WHICH channels are kept."""
    value = {
        "method": record.method,
        "members": record.members,
        "classes": list(record.classes),
        "input_shape": list(record.input_shape),
        "combine": str(record.combine),
        "network": None if record.network is None else record.network.to_json(),
        "form": None if record.form is None else record.form.to_json(),
        "groups": [
            [group.name, group.channels, [[cut.module, str(cut.side), cut.offset, cut.repeat] for cut in group.cuts]]
            for group in record.groups
        ],
        "channels": [
            [_mask(kept[group.name], group.channels) if group.name in kept else None for group in record.groups]
            for kept in record.channels
        ],
    }
    return compact(value)


def _mask(index: Tensor, channels: int) -> str:
    """One bit per channel, in hexadecimal."""
    flags = np.zeros(channels, dtype=bool)
    flags[index.cpu().numpy()] = True
    return np.packbits(flags).tobytes().hex()


def decode(record: object, summary: object) -> Record:
    """Read what `encode` and `summary_text` gave; nothing about it is trusted."""
    value = plain.object_of("the record", plain.parsed(plain.string("the record", record)), _KEYS)
    groups = tuple(_group(entry) for entry in plain.items("groups", value["groups"]))
    parsed_summary = plain.parsed(plain.string("the summary", summary))
    require(isinstance(parsed_summary, dict), "the summary must be a JSON object.")
    try:
        network = None if value["network"] is None else NetworkSpec.from_json(value["network"])
        form = None if value["form"] is None else Form.from_json(value["form"])
    except StructensError as error:
        raise ArtefactError(str(error)) from error
    return Record(
        method=plain.text("method", value["method"]),
        members=plain.integer("members", value["members"]),
        classes=tuple(plain.text("a class", name) for name in plain.items("classes", value["classes"])),
        input_shape=tuple(
            plain.integer("a side of input_shape", side) for side in plain.items("shape", value["input_shape"])
        ),
        combine=Combine(plain.one_of("combine", value["combine"], list(Combine))),
        network=network,
        form=form,
        groups=groups,
        channels=tuple(_kept(entry, groups) for entry in plain.items("channels", value["channels"])),
        summary=parsed_summary,
    )


def _group(value: object) -> Group:
    name, channels, cuts = plain.items("a group", value, 3)
    read = tuple(_cut(entry) for entry in plain.items("cuts", cuts))
    return Group(plain.text("a group's name", name), plain.integer("a group's channels", channels), read, private=False)


def _cut(value: object) -> Cut:
    module, side, offset, repeat = plain.items("a cut", value, 4)
    return Cut(
        plain.text("a cut's layer", module),
        Side(plain.one_of("a cut's side", side, list(Side))),
        plain.integer("a cut's offset", offset, low=0),
        plain.integer("a cut's repeat", repeat),
    )


def _kept(value: object, groups: Sequence[Group]) -> dict[str, Tensor]:
    masks = plain.items("a member's kept channels", value, len(groups))
    pairs = zip(groups, masks, strict=True)
    return {group.name: _unmask(mask, group) for group, mask in pairs if mask is not None}


def _unmask(value: object, group: Group) -> Tensor:
    text = plain.string("kept channels", value)
    right = len(text) == 2 * math.ceil(group.channels / 8) and re.fullmatch("[0-9a-f]*", text)
    require(bool(right), f"the kept channels of group {group.name!r} are not a mask of {group.channels} bits.")
    # Bits beyond the last channel become indices that Record refuses.
    return torch.from_numpy(np.flatnonzero(np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)))).long()
