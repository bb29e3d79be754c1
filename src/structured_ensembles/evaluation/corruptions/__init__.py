"""Common corruptions of images (Hendrycks and Dietterich 2019), made or read, and what they do to answers."""

from __future__ import annotations

from structured_ensembles.evaluation.corruptions.kinds import KINDS, NAME, SEVERITIES, STANDARD, corrupt
from structured_ensembles.evaluation.corruptions.measure import (
    Corruptions,
    KindScores,
    Scores,
    SeverityScores,
    corruptions,
    corruptions_of_files,
)

__all__ = [
    "KINDS",
    "NAME",
    "SEVERITIES",
    "STANDARD",
    "Corruptions",
    "KindScores",
    "Scores",
    "SeverityScores",
    "corrupt",
    "corruptions",
    "corruptions_of_files",
]
