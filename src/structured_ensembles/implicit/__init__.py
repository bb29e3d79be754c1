"""Networks that answer M times at once: several answers out of shared weights, instead of M networks.

In evaluation mode such a network maps inputs (B, ...) to logits (M, B, K), each example's on its own and always the
same; in training mode to (B, K) or (M, B, K), aligned with the labels of the B inputs. The losses of M answers are
averaged, or added where the network's attribute ``summed_loss`` is true: where members share no weights, or few.
"""

from __future__ import annotations

from structured_ensembles.implicit.form import Form, make

__all__ = ["Form", "make"]
