"""Sealed files: safetensors, which any reader of them opens, that hold a digest of their own content in the header.

A file begins with eight bytes, the length of its header; the header is JSON, and begins with its metadata.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from structured_ensembles.errors import ArtefactError
from structured_ensembles.files.plain import object_of, parsed, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LENGTH = 8
"""Bytes before the header."""


def beginning(key: str) -> bytes:
    """How the header of a file begins whose metadata begin with this key."""
    return f'{{"__metadata__":{{"{key}":'.encode()


def metadata(content: bytes, keys: Sequence[str]) -> dict[str, Any]:
    """The metadata of a file, which must have exactly these keys.

    Raises:
        ArtefactError: They have not, or the header is none.
    """
    size = int.from_bytes(content[:LENGTH], "little")
    header = parsed(content[LENGTH : LENGTH + size])
    require(isinstance(header, dict) and "__metadata__" in header, "its header has no metadata.")
    return object_of("its metadata", header["__metadata__"], keys)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within the block, what is wrong with a file is told with its path.

    Raises:
        ArtefactError: It is wrong, or cannot be read.
    """
    try:
        require(path.exists(), "there is no such file: check the path.")
        yield
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror or error}): check its permissions.") from error
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error


@contextmanager
def writing(path: Path, remedy: str) -> Iterator[None]:
    """Within the block, a file that cannot be written is told with its path.

    Raises:
        ArtefactError: It cannot; with what to check.
    """
    try:
        yield
    except OSError as error:
        raise ArtefactError(f"{path} cannot be written ({error.strerror or error}): check that {remedy}.") from error
