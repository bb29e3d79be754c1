"""What one predictor costs, in every unit that a table shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from structured_ensembles.artefact.file import Record
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.networks import NetworkSpec, build, sizes
from structured_ensembles.networks.modules import draw
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.ensemble import Ensemble

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Cost:
    """What one predictor costs, all of its members together.

    Attributes:
        parameters: Trainable and frozen ones, elements.
        buffers: Elements, such as the running statistics of normalisation layers.
        bytes_on_disk: Size of the file as stored.
        flops: Floating-point operations to predict ONE image; a multiply-add is two.
        seconds: Wall-clock time that fitting took; None where nothing was fitted.
    """

    parameters: int
    buffers: int
    bytes_on_disk: int
    flops: int
    seconds: float | None


def cost(ensemble: Ensemble, seconds: float | None = None) -> Cost:
    """What an ensemble costs."""
    size = ensemble.size()
    return Cost(size.parameters, sizes.buffers(ensemble.members), size.bytes, size.flops, seconds)


def dense(spec: NetworkSpec, classes: Sequence[str]) -> Cost:
    """What one whole network costs, saved like any ensemble, without training it."""
    record = Record(SingleNetwork.method, 1, tuple(classes), spec.input_shape, Combine.PROBABILITIES, spec)
    return cost(Ensemble([draw(lambda: build(spec), 0)], record))
