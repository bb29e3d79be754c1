"""What a predictor costs in use: its size, its memory and its time, beside a whole network and M of them.

All three are saved and measured alike, one after the other, on this machine. Times and memory depend on the machine and
on what else runs on it; parameters, buffers, bytes and FLOPs do not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from structured_ensembles.artefact.file import Record
from structured_ensembles.evaluation.cost import untrained
from structured_ensembles.evaluation.subject import Subject
from structured_ensembles.networks.sizes import Cost
from structured_ensembles.prediction import _resident
from structured_ensembles.prediction.ensemble import Ensemble

Note: TypeAlias = Callable[[str], object]
"""What is told why a number is missing, in one sentence; what it returns is not looked at."""

_PATIENCE = 300.0
"""Seconds that the measurement of memory may take."""
_TIMED = 0.5
"""Seconds of repeats, unless the fewest take longer."""
_FEWEST, _MOST = 3, 50


@dataclass(frozen=True)
class Footprint(Cost):
    """What one predictor costs in use, all of its members together.

    Attributes:
        peak_bytes: The most that is resident at once, IN TOTAL, in a fresh process on the CPU that loads the file and
            predicts batches of 128 images: Python and PyTorch are included, and are most of it for a small network
            (`peak_resident` has both). None where it could not be measured.
        bytes_before: Of those, what was resident before the file was loaded; None likewise.
        milliseconds_batch_1: To predict one image, the median of several times after a warm-up.
        milliseconds_batch_128: To predict 128 images together, likewise.
    """

    peak_bytes: int | None
    bytes_before: int | None
    milliseconds_batch_1: float
    milliseconds_batch_128: float


@dataclass(frozen=True)
class CostInUse:
    """A predictor beside what it is an alternative to, untrained: training changes none of these numbers.

    Attributes:
        ensemble: The predictor.
        dense: One whole network of its architecture; None if its file does not name it.
        deep: As many whole networks as the predictor has members; None likewise.
    """

    ensemble: Footprint
    dense: Footprint | None
    deep: Footprint | None


class Resident(NamedTuple):
    """Peaks of the bytes that a process had resident: ``peak - before`` is what loading and predicting added.

    Attributes:
        before: Until the file was loaded: Python, PyTorch and this library.
        peak: In all.
    """

    before: int
    peak: int


def measured(subject: Subject) -> CostInUse:
    """Of its file."""
    return cost_in_use(subject.path, lambda text: subject.failures.setdefault("cost: peak memory", text))


def cost_in_use(predictor: Ensemble | str | Path, note: Note = warnings.warn) -> CostInUse:
    """Measure a predictor, one whole network and a deep ensemble of as many members; some ten seconds.

    Args:
        predictor: An artefact, or an ensemble that has been fitted. Its inputs are floating numbers, such as images.
        note: Told what could not be measured.

    Raises:
        ArtefactError: The file is not an artefact, is damaged, or does not name its architecture: pass the ensemble.
        SettingsError: The ensemble has not been fitted.
    """
    ensemble = predictor if isinstance(predictor, Ensemble) else Ensemble.load(predictor)
    record = ensemble.record
    own = footprint(predictor, note)
    if record.network is None:
        return CostInUse(own, None, None)
    device = next(ensemble.parameters()).device
    whole = partial(untrained, record.network, record.classes, combine=record.combine)
    dense = footprint(whole(1).to(device), note)
    deep = dense if record.members == 1 else footprint(whole(record.members).to(device), note)
    return CostInUse(own, dense, deep)


def footprint(predictor: Ensemble | str | Path, note: Note = warnings.warn) -> Footprint:
    """Measure one predictor; a few seconds.

    Args:
        predictor: An artefact, or an ensemble that has been fitted. Its inputs are floating numbers, such as images.
        note: Told what could not be measured.

    Raises:
        ArtefactError: The file is not an artefact, is damaged, or does not name its architecture: pass the ensemble.
        SettingsError: The ensemble has not been fitted.
    """
    if not isinstance(predictor, Ensemble):
        return _measured(Ensemble.load(predictor), Path(predictor), note)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ensemble.safetensors"
        predictor.save(path)
        return _measured(predictor, path, note)


def peak_resident(path: Path, note: Note = warnings.warn) -> Resident | None:
    """The memory that predicting batches of 128 takes, in a process of its own on the CPU.

    Args:
        path: An artefact that names its architecture.
        note: Told why it could not be measured.

    Returns:
        None if the process failed, or the system does not tell what is resident.
    """
    if _resident.peak() is None:
        return None
    command = [sys.executable, "-m", _resident.__name__, str(path)]
    # Safe path: Python would otherwise import what the current folder happens to hold.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    try:
        output = subprocess.run(  # noqa: S603 (our own module)
            command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=_PATIENCE, env=environment
        ).stdout
        before, peak = json.loads(output.strip().rpartition(b"\n")[2])
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        note(f"The peak memory of {path.name} was not measured ({_reason(error)}).")
        return None
    return Resident(before, peak)


def _reason(error: Exception) -> str:
    """The last line that a failed process said, or else the error."""
    said = error.stderr.decode(errors="replace").strip() if isinstance(error, subprocess.CalledProcessError) else ""
    return said.splitlines()[-1] if said else str(error)


def _measured(ensemble: Ensemble, path: Path, note: Note) -> Footprint:
    resident = _peaks(ensemble.record, path, note)
    return Footprint(
        **asdict(replace(ensemble.size(), bytes=path.stat().st_size)),
        peak_bytes=resident and resident.peak,
        bytes_before=resident and resident.before,
        milliseconds_batch_1=_milliseconds(ensemble, 1),
        milliseconds_batch_128=_milliseconds(ensemble, 128),
    )


def _peaks(record: Record, path: Path, note: Note) -> Resident | None:
    if record.network is not None:
        return peak_resident(path, note)
    note("The peak memory was not measured: the artefact does not name its architecture, so no process can load it.")
    return None


def _milliseconds(ensemble: Ensemble, batch: int) -> float:
    """The median time to predict a batch, of 3 to 50 times."""
    images = torch.rand(batch, *ensemble.record.input_shape, generator=torch.Generator().manual_seed(0))
    _seconds(ensemble, images)  # the first pass also allocates and chooses algorithms
    times: list[float] = []
    while len(times) < _FEWEST or (sum(times) < _TIMED and len(times) < _MOST):
        times.append(_seconds(ensemble, images))
    return 1000 * median(times)


def _seconds(ensemble: Ensemble, images: Tensor) -> float:
    start = time.perf_counter()
    ensemble.predict(images, batch_size=len(images)).probabilities.cpu()  # an accelerator has answered by then
    return time.perf_counter() - start
