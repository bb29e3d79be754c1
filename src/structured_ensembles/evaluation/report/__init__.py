"""The page that people read: an evaluation as one HTML file that needs nothing else."""

from __future__ import annotations

from structured_ensembles.evaluation.report.gallery import NOTHING, Gallery, Shown, Vote, gallery
from structured_ensembles.evaluation.report.page import render, write
from structured_ensembles.evaluation.report.words import summary

__all__ = ["NOTHING", "Gallery", "Shown", "Vote", "gallery", "render", "summary", "write"]
