"""Many runs under one protocol."""

from __future__ import annotations

from structured_ensembles.experiments.comparison.grid import ARMS, Grid, arms, cells, fit_cell
from structured_ensembles.experiments.comparison.running import carry_out, claim, results, write_tables

__all__ = ["ARMS", "Grid", "arms", "carry_out", "cells", "claim", "fit_cell", "results", "write_tables"]
