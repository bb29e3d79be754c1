"""The file format: one safetensors file per ensemble, written whole or not at all, and never trusted when read.

A file is eight bytes with the length of its header, the header (JSON: a record, a summary, a SHA-256 and a table of
tensors) and the bytes of the tensors, the widest types first. Any safetensors reader opens it. The header is written
here, because its size must be known before there is anything to write and its bytes must not depend on chance.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, deserialize
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from structured_ensembles import networks, surgery
from structured_ensembles.errors import ArtefactError, StructensError
from structured_ensembles.extraction import draw, extract
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.types import Architecture, Channels, Combine, Cut, Group, Side

if TYPE_CHECKING:
    from numpy.typing import NDArray

JSON: TypeAlias = "None | bool | int | float | str | Sequence[JSON] | Mapping[str, JSON]"
"""What JSON can hold; sequences must be lists and mappings dicts, so that they are read back as they were."""

FORMAT = 1
SUMMARY_BYTES = 2048
"""Room that every file reserves for its summary, so that its size is known before training."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_VERSION = re.compile(rb'\{"__metadata__":\{"structured_ensembles":"(\d{1,9})"')
"""How the header of every format begins, this one and later ones."""
_START = f'{{"__metadata__":{{"structured_ensembles":"{FORMAT}","sha256":"'.encode()
_LENGTH = 8
_DIGEST = slice(_LENGTH + len(_START), _LENGTH + len(_START) + 64)
_NO_DIGEST = "0" * 64
_KEYS = ("method", "members", "classes", "input_shape", "combine", "network", "groups", "channels")
_LARGEST = 2**31 - 1
"""Of any width, offset or number of members."""
_LARGEST_INPUT = 2**28
_LARGEST_RATIO, _ALWAYS_ALLOWED = 1000, 2**26
"""A file may ask for a base network of so many times its own elements, or for so many parameters (256 MB)."""
_SHOWN = 5


class TensorSpec(NamedTuple):
    """What the size of a stored tensor depends on."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


# --- writing --------------------------------------------------------------------------------------------------------


def specs(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """The shape and type of each tensor, without memory behind it (``meta``) or with.

    Raises:
        ArtefactError: One is not a dense tensor of a type that a file can hold.
    """
    for name, tensor in tensors.items():
        storable = isinstance(tensor, Tensor) and tensor.layout is torch.strided and tensor.dtype in _NAMES
        kind = str(getattr(tensor, "dtype", type(tensor).__name__)).removeprefix("torch.")
        types = ", ".join(str(dtype).removeprefix("torch.") for dtype in _NAMES)
        require(storable, f"{name!r} ({kind}) cannot be stored: only dense tensors of the types {types} can.")
    return {name: TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def file_bytes(members: Sequence[Mapping[str, TensorSpec]], record: Record) -> int:
    """The exact size of the file that `write` makes of such tensors and this record.

    It depends on no tensor's values, nor on which channels are kept, nor on the summary.

    Raises:
        ArtefactError: The number of members is not the record's, or one has no tensors.
    """
    return len(_header(members, record)) + sum(spec.size for tensors in members for spec in tensors.values())


def write(path: Path, members: Sequence[Mapping[str, Tensor]], record: Record) -> None:
    """Write one artefact: the same tensors and record give the same bytes.

    Args:
        path: A new file in an existing folder. It appears with all of its bytes, or not at all.
        members: One ``state_dict`` per member, on any device.
        record: Everything else.

    Raises:
        ArtefactError: The file exists, it cannot be written, or what it should hold cannot be read back.
    """
    table = [specs(tensors) for tensors in members]
    header = _header(table, record)
    decode(encode(record), summary_text(record.summary))  # what would not be read back is not written
    parts = [_raw(members[member][name]) for member, name in _places(table)]
    digest = hashlib.sha256(header)
    for part in parts:
        digest.update(part)
    sealed = header[: _DIGEST.start] + digest.hexdigest().encode() + header[_DIGEST.stop :]
    try:
        _write_whole(Path(path), sealed, parts)
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be written ({error.strerror or error}): check that its folder exists, that you may write "
            "there and that there is space."
        ) from error


def _places(members: Sequence[Mapping[str, TensorSpec]]) -> list[tuple[int, str]]:
    """The members' tensors in the order of the file: the widest types first, which keeps all of them aligned."""
    keys = [(member, name) for member, tensors in enumerate(members) for name in tensors]
    return sorted(keys, key=lambda key: (-members[key[0]][key[1]].dtype.itemsize, *key))


def _header(members: Sequence[Mapping[str, TensorSpec]], record: Record) -> bytes:
    """The file's first bytes, up to the tensors, with zeros for the digest."""
    require(len(members) == record.members, f"{len(members)} members were given, and the record has {record.members}.")
    require(all(members), "a member without any tensor cannot be stored.")
    metadata = {"structured_ensembles": str(FORMAT), "sha256": _NO_DIGEST}
    metadata |= {"record": encode(record), "summary": summary_text(record.summary)}
    table: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for member, name in _places(members):
        spec = members[member][name]
        start, end = end, end + spec.size
        entry = {"dtype": _NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [start, end]}
        table[f"{member}.{name}"] = entry
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text


def _raw(tensor: Tensor) -> NDArray[np.uint8]:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return raw


def _write_whole(path: Path, header: bytes, parts: Sequence[NDArray[np.uint8]]) -> None:
    """Write beside ``path``, then rename: a reader or a crash never meets half a file."""
    require(not path.exists(), f"{path} exists already: choose another name, or move it away first.")
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(header)
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


# --- reading --------------------------------------------------------------------------------------------------------


def read(path: Path) -> tuple[Record, tuple[dict[str, Tensor], ...]]:
    """Read an artefact. Nothing that it names is imported, run or built.

    Returns:
        The record, and one ``state_dict`` per member.

    Raises:
        ArtefactError: There is no such file, or it is not an artefact, damaged, cut short or of a newer format.
    """
    path = Path(path)
    try:
        return _read_whole(path)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror or error}): check its permissions.") from error
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error
