"""``python -m structured_ensembles.cli``: the command, where scripts are not on the path."""

from __future__ import annotations

from structured_ensembles.cli.main import main

if __name__ == "__main__":
    main(prog_name="structens")
