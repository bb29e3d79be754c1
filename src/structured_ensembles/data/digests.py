"""Short texts that tell data and networks from others, to know what a stopped run may go on from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from structured_ensembles.data.labels import labels_of, sized
from structured_ensembles.errors import SettingsError
from structured_ensembles.files.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FINGERPRINT_INPUTS = 32
"""So many inputs of a set tell it from another one."""

DATA = "data.sha256"
"""Of a folder, what tells its data from others."""


def fingerprint(parts: Sequence[Any]) -> str:
    """Of all labels and of some inputs spread over the sets: enough to tell data apart without reading them whole."""
    found = hashlib.sha256()
    for part in parts:
        found.update(labels_of(part).numpy().tobytes())
        for index in range(0, sized(part), -(-sized(part) // FINGERPRINT_INPUTS)):
            inputs = torch.as_tensor(part[index][0]).cpu().contiguous()
            found.update(inputs.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def of_weights(tensors: Mapping[str, Any]) -> str:
    """Of names, types, shapes and bits: tells one state of a network from any other."""
    found = hashlib.sha256()
    for name, tensor in ((name, value) for name, value in tensors.items() if isinstance(value, Tensor)):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def check_mark(folder: Path | None, found: str, refusal: str, name: str = DATA) -> None:
    """Refuse a folder that holds the state of something else; None is no folder.

    Args:
        folder: Where state is kept, or may be.
        found: Tells this from others.
        refusal: What to say.
        name: Of the file that marks it.

    Raises:
        SettingsError: It is marked as that of another.
    """
    path = None if folder is None else folder / name
    if path is not None and path.exists() and path.read_text(encoding="utf-8") != found:
        raise SettingsError(refusal)


def claim(folder: Path | None, found: str, refusal: str, name: str = DATA) -> None:
    """Refuse a folder that is marked as that of something else, or mark it: `check_mark`, then `mark`."""
    check_mark(folder, found, refusal, name)
    mark(folder, found, name)


def mark(folder: Path | None, found: str, name: str = DATA) -> None:
    """Mark a folder, which is about to hold state, so that `check_mark` knows it; None is no folder."""
    if folder is not None and not (folder / name).exists():
        write_whole(folder / name, found)
