from __future__ import annotations

import errno
import importlib.metadata
import subprocess
import sys

import pytest

from structured_ensembles.cli.verbs import fit as fit_module
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.catalogue import VERBS

from .conftest import invoke

HELP = """
import sys
from structured_ensembles.cli.main import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"torch", "lightning", "matplotlib", "numpy", "sklearn", "rich"} & set(sys.modules)
    print("imported:", sorted(heavy))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    done = subprocess.run([sys.executable, "-c", HELP, *arguments], capture_output=True, text=True, check=True)  # noqa: S603

    assert "imported: []" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_explains_itself_with_an_example(verb):
    result = invoke(verb, "--help")

    assert result.exit_code == 0
    assert f"Examples:\n  structens {verb}" in result.output
    first = VERBS.about(verb).split(":")[0].rstrip(".")
    assert first in " ".join(result.output.split())
    assert "--debug" in result.output


def test_the_version_is_that_of_the_package():
    assert importlib.metadata.version("structured-ensembles") in invoke("--version").output


@pytest.mark.parametrize(
    "arguments", [["fit", "--members", "four"], ["fit", "--memberz", "4"], ["predcit"], ["predict"]]
)
def test_a_wrong_command_line_is_a_usage_error(arguments):
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert "Usage: " in result.stderr


@pytest.mark.parametrize("arguments", [["--debug", "inspect", "nothing"], ["inspect", "nothing", "--debug"]])
def test_debug_shows_where_an_error_comes_from(arguments):
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == "Error: nothing: there is no such file: check the path."


def test_an_error_of_many_lines_is_told_in_one(monkeypatch, refused):
    monkeypatch.setattr(fit_module, "folder_for", raising(SettingsError("one\n  two")))

    assert refused("fit") == "Error: one two\n"


def test_a_bug_is_called_one(monkeypatch):
    monkeypatch.setattr(fit_module, "folder_for", raising(ZeroDivisionError("oh")))
    result = invoke("fit")

    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)
    assert "This is a bug of structens" in result.stderr


def test_a_full_disk_is_no_bug(monkeypatch, refused):
    monkeypatch.setattr(fit_module, "folder_for", raising(OSError(errno.ENOSPC, "No space left on device", "runs/a")))

    assert refused("fit") == "Error: cannot read or write runs/a (No space left on device)\n"


def test_an_interrupt_has_its_own_status(monkeypatch):
    monkeypatch.setattr(fit_module, "folder_for", raising(KeyboardInterrupt()))

    assert invoke("fit").exit_code == 130


def raising(error):
    def fail(*_):
        raise error

    return fail
