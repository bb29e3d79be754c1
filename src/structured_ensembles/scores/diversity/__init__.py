"""Regularisation terms that keep the members of a search apart: one file each, and their registry."""

from __future__ import annotations

from structured_ensembles.scores.diversity import cosine, kl, mmd, mmd_global, mmd_textbook, output, overlap
from structured_ensembles.scores.diversity.registry import (
    Observation,
    Term,
    check_weights,
    names,
    needs_logits,
    penalty,
    register,
    term,
)

__all__ = ["Observation", "Term", "check_weights", "names", "needs_logits", "penalty", "register", "term"]

_BUILT_IN = (cosine, kl, mmd, mmd_global, mmd_textbook, output, overlap)
"""The files of this room: importing one registers its terms."""
