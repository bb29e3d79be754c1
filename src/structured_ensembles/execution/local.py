"""Cells of a grid on this machine: one after the other in this process, or several at once in others."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

import torch

from structured_ensembles import plugins
from structured_ensembles.errors import SettingsError
from structured_ensembles.progress import quiet

C = TypeVar("C")
R = TypeVar("R")


def run(waiting: Sequence[C], here: Callable[[C], R], there: Callable[[], Callable[[C], R]], jobs: int) -> Iterator[R]:
    """Results in the order in which they come.

    Each cell computes on one thread: its numbers do not depend on how many run at once.

    Args:
        waiting: What to run.
        here: Runs one in this process.
        there: In another process, makes what does the same there; it is called once in each.
        jobs: How many run at once; 1 stays in this process.

    Raises:
        SettingsError: A process was killed.
    """
    if jobs == 1:
        with _one_thread():
            for cell in waiting:
                yield here(cell)
        return
    with _workers(there, jobs) as pool:
        try:
            futures = [pool.submit(_in_worker, cell) for cell in waiting]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise SettingsError(
                f"a process was killed, perhaps for want of memory: go on with fewer at once (--jobs {jobs - 1})"
            ) from error


@contextmanager
def _workers(there: Callable[[], Callable[[Any], Any]], jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that know what all cells need; whatever stops the block stops them too."""
    others = set(multiprocessing.active_children())
    # A process that was forked from one with threads, as torch has, may hang: start them afresh.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _prepare, (there, plugins.loaded()))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    pool.shutdown()


_prepared: list[Callable[[Any], Any]] = []
"""In a worker, what runs a cell."""


def _prepare(there: Callable[[], Callable[[Any], Any]], files: Sequence[Path]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    for file in files:
        plugins.load(file)
    _prepared.append(there())


def _end_with_parent() -> None:
    """A parent that was killed can stop nobody: its workers would go on, and train for no one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _in_worker(cell: Any) -> Any:  # noqa: ANN401 (whatever the grid's cells and results are)
    with quiet():
        return _prepared[-1](cell)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
