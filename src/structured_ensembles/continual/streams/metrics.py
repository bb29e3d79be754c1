"""What a stream of tasks came to, from its accuracies.

R is the T x T matrix of accuracies: R[i, j] is that on the test images of task j once task i has been learned, NaN
where nothing was measured (j > i, if task j has no output layer yet). Every number here is a plain mean: one that
needs an entry which was not measured is NaN, and so is one that a stream of one task does not have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from structured_ensembles.errors import DataError

Matrix: TypeAlias = Sequence[Sequence[float]]
"""R by rows, each of T accuracies in [0, 1] or NaN."""


@dataclass(frozen=True)
class StreamMetrics:
    """The numbers of one stream; see the functions of these names.

    Attributes:
        average_accuracy: Over all tasks, at the end.
        total_accuracy: Over all tasks and the whole stream.
        backward_transfer_lopez_paz: At the end; negative is forgetting.
        backward_transfer_diaz_rodriguez: Over the whole stream; negative is forgetting.
        forgetting: From the best that a task has been, at the end.
        transfer: Against single networks; NaN without them.
        intransigence: Against joint training; NaN without it.
    """

    average_accuracy: float
    total_accuracy: float
    backward_transfer_lopez_paz: float
    backward_transfer_diaz_rodriguez: float
    forgetting: float
    transfer: float
    intransigence: float


def measure(r: Matrix, single: Matrix | None = None, joint: Matrix | None = None) -> StreamMetrics:
    """Everything at once.

    Args:
        r: Of the strategy.
        single: Of single-task networks on the same stream.
        joint: Of joint training on the same stream.

    Raises:
        DataError: A matrix is not square, or not as large as ``r``, or holds something else than shares and NaN.
    """
    return StreamMetrics(
        average_accuracy=average_accuracy(r),
        total_accuracy=total_accuracy(r),
        backward_transfer_lopez_paz=backward_transfer_lopez_paz(r),
        backward_transfer_diaz_rodriguez=backward_transfer_diaz_rodriguez(r),
        forgetting=forgetting(r),
        transfer=math.nan if single is None else transfer(r, single),
        intransigence=math.nan if joint is None else intransigence(r, joint),
    )


def average_accuracy(r: Matrix) -> float:
    """Mean over tasks of the accuracy at the end: that of the last row."""
    return float(_checked(r)[-1].mean())


def total_accuracy(r: Matrix) -> float:
    """Mean over all R[i, j] with i >= j: 2 / (T (T + 1)) times their sum (published)."""
    rows = _checked(r)
    return float(rows[_lower(rows, 0)].mean())


def backward_transfer_lopez_paz(r: Matrix) -> float:
    """Mean over j < T of R[T, j] - R[j, j] (Lopez-Paz and Ranzato 2017, arXiv 1706.08840); NaN for one task."""
    rows = _checked(r)
    return float((rows[-1] - rows.diagonal())[:-1].mean())


def backward_transfer_diaz_rodriguez(r: Matrix) -> float:
    """Mean over all i > j of R[i, j] - R[j, j] (Diaz-Rodriguez et al. 2018, arXiv 1810.13166); NaN for one task."""
    rows = _checked(r)
    return float((rows - rows.diagonal())[_lower(rows, -1)].mean())


def forgetting(r: Matrix) -> float:
    """Mean over j < T of the highest R[i, j], j <= i < T, less R[T, j]; NaN for one task.

    Negative where tasks are better at the end than they have ever been (Chaudhry et al. 2018, arXiv 1801.10112).
    """
    rows = _checked(r)
    before = rows[:-1, :-1]
    learned = torch.where(_lower(before, 0), before, -math.inf)
    best = learned.amax(dim=0) if len(before) else before.new_empty(0)
    return float((best - rows[-1, :-1]).mean())


def transfer(r: Matrix, single: Matrix) -> float:
    """Mean over tasks of R[j, j] less the accuracy of a network that learned task j alone, from scratch.

    Positive where earlier tasks helped to learn later ones.
    """
    rows, alone = _checked(r), _checked(single)
    return float((rows.diagonal() - _as_large(alone, rows).diagonal()).mean())


def intransigence(r: Matrix, joint: Matrix) -> float:
    """Mean over tasks of the accuracy of joint training on tasks 0 ... j, less R[j, j] (Chaudhry et al. 2018).

    Positive where a task could not be learned as well as with all data at once.
    """
    rows, together = _checked(r), _checked(joint)
    return float((_as_large(together, rows).diagonal() - rows.diagonal()).mean())


def model_size_efficiency(totals: Sequence[int]) -> float:
    """How little the memory grows: min(1, mean over t of Mem_0 / Mem_t) (Diaz-Rodriguez et al. 2018).

    Args:
        totals: Bytes after each task, all above 0.
    """
    return min(1.0, sum(totals[0] / total for total in totals) / len(totals))


def _lower(rows: Tensor, diagonal: int) -> Tensor:
    """Whether an entry is on or below a diagonal."""
    return torch.ones_like(rows, dtype=torch.bool).tril(diagonal)


def _as_large(reference: Tensor, rows: Tensor) -> Tensor:
    if reference.shape != rows.shape:
        raise DataError(
            f"accuracies of {len(rows)} tasks against those of {len(reference)}: measure both on one stream"
        )
    return reference


def _checked(r: Matrix) -> Tensor:
    """(T, T), float64."""
    if not len(r) or any(len(row) != len(r) for row in r):
        lengths = sorted({len(row) for row in r})
        raise DataError(f"{len(r)} rows of {lengths} accuracies: pass T rows of T, NaN where nothing was measured")
    rows = torch.tensor([list(row) for row in r], dtype=torch.float64)
    wrong = rows[(rows < 0) | (rows > 1)]
    if wrong.numel():
        raise DataError(f"an accuracy of {float(wrong[0]):g}: pass shares from 0 to 1, not percentages")
    return rows
