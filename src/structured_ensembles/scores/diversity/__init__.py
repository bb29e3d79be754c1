"""Regularisation terms that keep the members of a search apart: one file each."""

from __future__ import annotations

from structured_ensembles.scores.diversity.terms import Observation, Term, needs_logits, penalty, register

__all__ = ["Observation", "Term", "needs_logits", "penalty", "register"]
