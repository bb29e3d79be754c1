"""Seeds: one for a run, derived ones for its parts, and the global generators left as they were."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from structured_ensembles.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator


def derived_seed(seed: int, *path: int) -> int:
    """A seed below 2**32 for one part of a run, for example an epoch: a pure function of the arguments.

    Args:
        seed: The seed of the run, at least 0.
        path: Numbers at least 0 that name the part.

    Raises:
        SettingsError: If a number is negative.
    """
    if min(seed, *path, 0) < 0:
        raise SettingsError(f"seed {seed} is negative: use a whole number from 0 on.")
    return int(np.random.SeedSequence(seed, spawn_key=path).generate_state(1)[0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, torch's global generators start from ``seed``; afterwards they are as they were before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
