"""Seeds: one for a run, derived ones for its parts, and the global generators left as they were."""

from __future__ import annotations

import os
import platform
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from structured_ensembles.errors import SettingsError


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
    """Within the block, all global generators start from ``seed``; afterwards they are as they were.

    Those of torch (CPU and GPUs), and of Python and numpy, from which the transforms of a user's data may draw.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global one is what they use)
    # Every device by name: left to itself, torch warns where there are several.
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def deterministic() -> Iterator[None]:
    """Within the block, torch gives the same numbers each time, as far as its kernels can.

    A CPU needs it too: from some size on, its threads add up the gradient of an indexed tensor in the order of chance.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # a module with a property, which type checkers do not see
    fill = memory.fill_uninitialized_memory
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # it costs time, and nothing here reads such memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def machine() -> str:
    """The version of torch and the kind of processor, or of GPU if there is one: there a seed gives its numbers again.

    Others round differently, and after thousands of steps that is another network.
    """
    if torch.cuda.is_available():
        chip = torch.cuda.get_device_name()
    else:
        chip = f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"
    return f"torch {torch.__version__}, {chip}"


def _processor() -> str:
    known = Path("/proc/cpuinfo")  # on Linux, `platform` knows the architecture only
    lines = known.read_text(encoding="utf-8", errors="replace").splitlines() if known.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
