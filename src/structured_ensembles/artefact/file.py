"""The file format: one safetensors file per ensemble, written whole or not at all, and never trusted when read.

A file is eight bytes with the length of its header, the header (JSON: a digest, a record, a summary and a table of
tensors) and the bytes of the tensors, the widest types first. The digest is the SHA-256 of the whole file with zeros
in its own place. Any safetensors reader opens the file. The header is made here and not by that library, because its
size must be known before there is anything to write, and its bytes must not depend on chance.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, deserialize
from torch import Tensor

from structured_ensembles.artefact.record import JSON, SUMMARY_BYTES, Record, decode, encode, summary_text
from structured_ensembles.artefact.restoring import restore
from structured_ensembles.errors import ArtefactError
from structured_ensembles.files.plain import compact, require
from structured_ensembles.files.sealed import LENGTH, beginning, metadata, reading, writing
from structured_ensembles.files.whole import whole

__all__ = ["FORMAT", "JSON", "SUMMARY_BYTES", "Record", "TensorSpec", "file_bytes", "read", "restore", "specs", "write"]

FORMAT = 1

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
_KEYS = ("structured_ensembles", "sha256", "record", "summary")
_VERSION = re.compile(re.escape(beginning(_KEYS[0])) + rb'"(\d{1,9})"')
"""How the header of every format begins, this one and later ones."""
_START = beginning(_KEYS[0]) + f'"{FORMAT}","sha256":"'.encode()
_DIGEST = slice(LENGTH + len(_START), LENGTH + len(_START) + 64)
_NO_DIGEST = "0" * 64
_MOST_DIMENSIONS = 16


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
    sealed = header[: _DIGEST.start] + _digest(header, *parts) + header[_DIGEST.stop :]
    with writing(path, "its folder exists, that you may write there and that there is space"):
        require(not Path(path).exists(), f"{path} exists already: choose another name, or move it away first.")
        with whole(Path(path)) as partial, partial.open("wb") as file:
            file.writelines([sealed, *parts])


def _places(members: Sequence[Mapping[str, TensorSpec]]) -> list[tuple[int, str]]:
    """The members' tensors in the order of the file: the widest types first, which keeps all of them aligned."""
    keys = [(member, name) for member, tensors in enumerate(members) for name in tensors]
    return sorted(keys, key=lambda key: (-members[key[0]][key[1]].dtype.itemsize, *key))


def _header(members: Sequence[Mapping[str, TensorSpec]], record: Record) -> bytes:
    """The file's first bytes, up to the tensors, with zeros for the digest."""
    require(
        len(members) == record.networks, f"{len(members)} members were given, and the record has {record.networks}."
    )
    require(all(members), "a member without any tensor cannot be stored.")
    values = (str(FORMAT), _NO_DIGEST, encode(record), summary_text(record.summary))
    table: dict[str, object] = {"__metadata__": dict(zip(_KEYS, values, strict=True))}
    end = 0
    for member, name in _places(members):
        spec = members[member][name]
        start, end = end, end + spec.size
        entry = {"dtype": _NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [start, end]}
        table[f"{member}.{name}"] = entry
    text = compact(table).encode()
    text += b" " * (-len(text) % LENGTH)
    return len(text).to_bytes(LENGTH, "little") + text


def _raw(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


# --- reading --------------------------------------------------------------------------------------------------------


def read(path: Path) -> tuple[Record, tuple[dict[str, Tensor], ...]]:
    """Read an artefact. Nothing that it names is imported, run or built.

    Returns:
        The record, and one ``state_dict`` per member.

    Raises:
        ArtefactError: There is no such file, or it is not an artefact, damaged, cut short or of a newer format.
    """
    path = Path(path)
    with reading(path):
        require(not path.is_dir(), "is a folder: name the artefact in it.")
        require(path.is_file(), "is not a regular file: name an artefact.")
        with path.open("rb") as file:
            _recognise(file.read(_DIGEST.stop))
            file.seek(0)
            content = file.read()
        _verify(content)
        said = metadata(content, _KEYS)
        record = decode(said["record"], said["summary"])
        return record, _members(content, record.networks)


def _recognise(start: bytes) -> None:
    """Say what a file is that does not begin as an artefact of this format does."""
    version = _VERSION.match(start, LENGTH)
    if version and int(version[1]) > FORMAT:
        raise ArtefactError(
            f"has format {int(version[1])}, and this version of structured-ensembles reads up to {FORMAT}: update it "
            "(pip install -U structured-ensembles). If the file is older than the package, it is damaged."
        )
    if start[LENGTH : _DIGEST.start] == _START:
        return
    raise ArtefactError(f"{_kind(start)}. Artefacts are the files that `save` and `structens fit` write.")


def _kind(start: bytes) -> str:
    if not start:
        return "is empty"
    if start[LENGTH : LENGTH + 1] == b"{":
        return "is a safetensors file, but not an artefact of this library, or damaged in its first bytes"
    if start.startswith(b"PK"):
        return (
            "is a zip archive, as torch.save and numpy.savez write them; it could hold pickled code and is not opened"
        )
    if re.match(rb"\x80[\x02-\x05]", start):
        return "is a pickle, as older versions of torch.save write them; loading it could run its code, so it is not"
    return "is not an artefact"


def _digest(header: bytes, *parts: memoryview) -> bytes:
    """SHA-256 in hexadecimal of a file whose first part has anything in the digest's place."""
    digest = hashlib.sha256(header[: _DIGEST.start] + _NO_DIGEST.encode() + header[_DIGEST.stop :])
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()


def _verify(content: bytes) -> None:
    same = _digest(content[: _DIGEST.stop], memoryview(content)[_DIGEST.stop :]) == content[_DIGEST]
    require(same, "is damaged or cut short (its SHA-256 does not match): copy or download it again.")


def _members(content: bytes, count: int) -> tuple[dict[str, Tensor], ...]:
    """The tensors by member, their table checked by the safetensors library."""
    try:
        entries = deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ArtefactError(f"its table of tensors is not valid ({str(error)[:200]}).") from error
    require(count <= len(entries), f"it names {count} members, and holds {len(entries)} tensors.")
    members: dict[str, dict[str, Tensor]] = {str(member): {} for member in range(count)}
    for key, entry in entries:
        member, _, name = key.partition(".")
        require(member in members, f"tensor {key[:200]!r} belongs to none of the {count} members.")
        members[member][name] = _tensor(key, entry["dtype"], entry["shape"], entry["data"])
    require(all(members.values()), "one of its members has no tensors.")
    return tuple(members.values())


def _tensor(key: str, dtype: str, shape: list[int], data: bytearray) -> Tensor:
    """A tensor that owns ``data``."""
    require(dtype in _DTYPES, f"tensor {key[:200]!r} has the type {dtype}, which no member has.")
    positions = math.prod(max(side, 1) for side in shape)
    require(positions < 2**48 and len(shape) <= _MOST_DIMENSIONS, f"tensor {key[:200]!r} has an impossible shape.")
    if not data:
        return torch.empty(shape, dtype=_DTYPES[dtype])
    return torch.frombuffer(data, dtype=_DTYPES[dtype]).reshape(shape)
