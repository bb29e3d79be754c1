"""Short texts that tell data and networks from others, to know what a stopped run may go on from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from structured_ensembles.data.labels import labels_of, sized

if TYPE_CHECKING:
    from collections.abc import Sequence

FINGERPRINT_INPUTS = 32
"""So many inputs of a set tell it from another one."""


def fingerprint(parts: Sequence[Any]) -> str:
    """Of all labels and of some inputs spread over the sets: enough to tell data apart without reading them whole."""
    found = hashlib.sha256()
    for part in parts:
        found.update(labels_of(part).numpy().tobytes())
        for index in range(0, sized(part), -(-sized(part) // FINGERPRINT_INPUTS)):
            inputs = torch.as_tensor(part[index][0]).cpu().contiguous()
            found.update(inputs.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
