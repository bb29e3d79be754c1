"""Short texts that tell data from others, to know what a stopped run may go on from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from structured_ensembles.data.labels import spread
from structured_ensembles.seeding import seeded

if TYPE_CHECKING:
    from structured_ensembles.data.examples import Examples

FINGERPRINT_INPUTS = 32
"""So many inputs of a set tell it from another one."""


def fingerprint(*parts: Examples) -> str:
    """Of all labels and of some inputs spread over the sets: enough to tell data apart without reading them whole."""
    found = hashlib.sha256()
    with seeded(0):  # transforms may draw at random: the same data are to have the same fingerprint each time
        for part in parts:
            found.update(part.labels.numpy().tobytes())
            for index in spread(len(part), FINGERPRINT_INPUTS):
                inputs = torch.as_tensor(part.dataset[index][0]).cpu().contiguous()
                found.update(inputs.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
