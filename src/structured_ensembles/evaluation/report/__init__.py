"""The page that people read: an evaluation as one HTML file that needs nothing else."""

from __future__ import annotations

from .gallery import Gallery, Shown, Vote, gallery
from .page import render, write

__all__ = ["Gallery", "Shown", "Vote", "gallery", "render", "write"]
