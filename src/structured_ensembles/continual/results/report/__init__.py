"""The page that people read about a stream of tasks: one HTML file that needs nothing else."""

from __future__ import annotations

from structured_ensembles.continual.results.report.page import render, write
from structured_ensembles.continual.results.report.words import summary

__all__ = ["render", "summary", "write"]
