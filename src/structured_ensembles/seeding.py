"""Seeds: one for a run, derived ones for its parts, and the global generators left as they were."""

from __future__ import annotations

import os
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
    if (lowest := min(seed, *path, 0)) < 0:
        raise SettingsError(f"seed {lowest} is negative: use a whole number from 0 on.")
    return int(np.random.SeedSequence(seed, spawn_key=path).generate_state(1)[0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, torch's generators (CPU and GPUs) start from ``seed``; afterwards they are as they were."""
    # Every device by name: left to itself, torch warns where there are several.
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def deterministic() -> Iterator[None]:
    """Within the block, a GPU gives the same numbers each time, as far as its kernels can; a CPU does so anyway."""
    if not torch.cuda.is_available():
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
