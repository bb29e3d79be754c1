"""How much memory an ensemble takes to predict, as a process of its own that does nothing else.

    python -m structured_ensembles.prediction._resident ARTEFACT

prints two numbers of bytes as JSON: the most that was resident before the file was loaded (Python, PyTorch and this
library), and in all. It imports no more than prediction needs, for what is imported is counted.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

BATCH, BATCHES = 128, 3


def peak() -> int | None:
    """The most bytes that this process has had resident so far; None where the system does not say.

    Linux keeps the peak of the program itself in ``/proc``. Its ``ru_maxrss`` will not do: a new program inherits there
    the peak of the process that started it, and an evaluation is larger than what it measures.
    """
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found[1]) * 1024 if found else _from_usage()


def _from_usage() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # bytes there, kilobytes elsewhere


def main(path: str) -> None:
    """Load an artefact, predict a few batches of synthetic images, print the peaks before and in all."""
    import torch

    from structured_ensembles.prediction.ensemble import Ensemble

    before = peak()
    ensemble = Ensemble.load(path)
    images = torch.rand(BATCH, *ensemble.record.input_shape, generator=torch.Generator().manual_seed(0))
    for _ in range(BATCHES):
        ensemble.predict(images, batch_size=BATCH)
    print(json.dumps([before, peak()]))


if __name__ == "__main__":
    main(sys.argv[1])
