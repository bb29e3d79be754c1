"""The parts of a stream that have seeds of their own: ``derived_seed(seed, PART, task)``.

Every strategy has the first three; each numbers what it alone has from 3 on, as the structured learner does here.
"""

from __future__ import annotations

BACKBONE, HEAD, TRAIN, SPLIT, SEARCH, RANK, GROW = range(7)
