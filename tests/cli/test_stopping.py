"""Real signals to real processes: what batch systems, containers and impatient people do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from structured_ensembles.cli.stopping import Terminated, stoppable

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 120
COMMANDS = {
    "fit": ["fit", "--epochs", "100000", "--members", "1", "--search-steps", "1"],
    "compare": ["compare", "--epochs", "100000", "--methods", "single", "--seeds", "1", "--jobs", "2"],
}


def started(command: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """The command in a group of processes of its own, once it trains."""
    arguments = [sys.executable, "-m", "structured_ensembles.cli", *COMMANDS[command], "--out", str(folder)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(  # noqa: S603 (of our own making)
        arguments, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True, cwd=folder.parent
    )
    await_that(lambda: any(folder.rglob("training.ckpt")) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return process


def await_that(true) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("command", list(COMMANDS))
def test_sigterm_stops_everything_and_tells_how_to_go_on(command, tmp_path, environment) -> None:
    process = started(command, tmp_path / "run", environment)
    try:
        process.terminate()
        output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 143, errors
        assert f"Go on with:  structens {command} --resume --out {tmp_path / 'run'}" in output
        assert errors.rstrip().endswith("Stopped.")
        await_that(lambda: gone(process.pid))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


WORKERS = """
import time
from pathlib import Path
from structured_ensembles.execution import local

def there():
    return work

def work(cell):
    Path(f"cell{cell}.begun").touch()
    time.sleep(3600)

if __name__ == "__main__":
    list(local.run([0, 1], work, there, jobs=2))
"""


@pytest.mark.slow
def test_workers_end_with_a_process_that_is_killed(tmp_path, environment) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    process = subprocess.Popen([sys.executable, "workers.py"], env=environment, start_new_session=True, cwd=tmp_path)
    try:
        await_that(lambda: len(list(tmp_path.glob("*.begun"))) == 2 or process.poll() is not None)
        assert process.poll() is None
        process.kill()
        process.communicate(timeout=PATIENCE)
        await_that(lambda: gone(process.pid))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_the_handler_of_the_caller_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
