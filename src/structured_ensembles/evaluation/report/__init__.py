"""The page that people read: an evaluation as one HTML file that needs nothing else."""

from __future__ import annotations

from .gallery import NOTHING, Gallery, Shown, Vote, gallery
from .page import render, write
from .words import summary

__all__ = ["NOTHING", "Gallery", "Shown", "Vote", "gallery", "render", "summary", "write"]
