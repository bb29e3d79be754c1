from __future__ import annotations

from pathlib import Path

from structured_ensembles.cli.grids import plan_of


def test_one_is_no_plural() -> None:
    assert (
        plan_of(["hat"], "strategy", "strategies", 1, 2, Path("a")) == "1 strategy, 1 run, 2 at once. Results go to a."
    )
    assert plan_of(["a", "b"], "method", "methods", 4, 1, Path("a")).startswith("2 methods, 4 runs, 1 at once")
