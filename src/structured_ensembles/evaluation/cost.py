"""What one predictor costs, in every unit that a table shows."""

from __future__ import annotations

from dataclasses import dataclass


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
