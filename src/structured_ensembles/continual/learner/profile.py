"""What is kept of a task's examples, so that inputs without a task id can be told from those of other tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Profile:
    """What the examples of a task look like to its own network.

    Attributes:
        temperature: That calibrates its head on held-out examples.
        means: (K, d), mean features of the classes that had examples.
        precision: (d, d), inverse of the covariance that the classes share.
        usual: (4, 2), mean and standard deviation of every `Score` on held-out examples.
    """

    temperature: float
    means: Tensor
    precision: Tensor
    usual: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that answers without a task id need beside those of `Memory`."""
        return 8 + self.means.nbytes + self.precision.nbytes + self.usual.nbytes
