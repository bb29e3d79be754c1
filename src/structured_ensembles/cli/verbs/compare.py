"""`structens compare`: every method, under one protocol."""

from __future__ import annotations

from typing import Any

from structured_ensembles.cli.grids import asked, at_once, gridded, opened, plan_of, show, tell_failure
from structured_ensembles.cli.printing import note, say
from structured_ensembles.cli.verb import folder_for
from structured_ensembles.options.plans import Grid

_EXAMPLES = """
structens compare --seeds 3                                          all methods, on handwritten digits
structens compare --data my_images/ --architecture resnet20 --methods single,structured,narrow,deep
structens compare --data mnist.npz --members 2,4 --budgets 0.5x,1x,2x --seeds 5 --out runs/grid
structens compare --resume --out runs/grid                           go on where it was stopped
structens compare --resume --seeds 10 --out runs/grid                add seeds to it
"""
_FILES = (
    ("results.csv, results.json", "one row a run"),
    ("summary.md", "means, spread, paired differences with intervals"),
    ("cost.png", "accuracy, NLL and ECE against bytes"),
    ("training_cost.png", "accuracy against what training costs"),
    ("diversity.png", "accuracy against how often members disagree"),
)


@gridded("compare", Grid, _EXAMPLES)
def compare(**parameters: Any) -> None:  # noqa: ANN401 (click's)
    """Set a structured ensemble beside its rivals, at equal bytes.

    Every METHOD is trained for every number of MEMBERS, every BUDGET and every seed, on the same images, split, epochs
    and schedule. Methods that cannot choose their size are run once for each number of members. A run that fails is
    reported in the table and stops nobody else.

    The methods: single (one network), deep (whole networks), structured, and published (the published search and
    selection, whatever the options for these say, with the training of all the others); the control arms narrow and
    narrow_sliced (independent networks of uniform width, with an initialisation of their own or sliced from a wide
    one), random, shuffled (structured's widths, random channels) and magnitude; and the rivals packed, mc_dropout,
    snapshot, batch_ensemble, masksembles and mimo. packed and masksembles need a package:
    pip install 'structured-ensembles[compare]'.
    """
    from structured_ensembles.cli import configuration
    from structured_ensembles.cli.folder import check_new
    from structured_ensembles.cli.session import describe
    from structured_ensembles.experiments import run
    from structured_ensembles.experiments.comparison.grid import work
    from structured_ensembles.experiments.comparison.tables import console
    from structured_ensembles.experiments.comparison.writing import write_tables

    grid = asked("compare", Grid, configuration.comparison, parameters)
    folder = parameters["out"] or folder_for([grid.plan.data], grid.plan.architecture, verb="compare")
    jobs, resume = at_once(parameters["jobs"]), parameters["resume"]
    if not resume:
        check_new(folder, "compare")
    asked_for = work(grid)
    images = asked_for.load()
    note(images.notices)
    run.network(grid.plan, images)
    say(describe(images))
    say(plan_of(grid.methods, "method", "methods", len(asked_for.cells), jobs, folder))
    with opened("compare", grid, folder, [images], resume=resume):
        results = asked_for.carry_out(images, folder, jobs)
        write_tables(grid, images, results, folder)
        show(results, console, folder, _FILES)
        tell_failure([result.error for result in results], "compare", folder)
