"""Who may work on a run: one driver at a time, and its ranks.

Both are locks of the kernel's, flock(2), which end with their processes. The ranks have one of
their own, since they may outlive a launcher that was killed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpckit.errors import BusyError
from hpckit.store.atomic import explained
from hpckit.store.manifest import read
from hpckit.store.rundir import RunDir

POLL_SECONDS = 0.05


@contextmanager
def driving(run: RunDir, patience: float = 0.0, ended_jobs: Collection[str] = ()) -> Iterator[int]:
    """Hold the run for one driver, and yield a descriptor that holds it too if inherited.

    Parameters
    ----------
    patience
        Seconds to wait for a holder to end.
    ended_jobs
        The scheduler's jobs that are known to have ended, with whatever held the run in them.

    Raises
    ------
    BusyError
        Another process works on this run, or may do so.
    StoreError
        The run's directory cannot be written to.
    """
    descriptor = _opened(run.lock_file)
    try:
        _wait(run, lambda: _is_alone(run, descriptor, ended_jobs), patience)
        yield descriptor
    finally:
        os.close(descriptor)


def join_ranks(run: RunDir) -> None:
    """Have this process count as one of the run's ranks until it ends."""
    descriptor = _opened(run.ranks_lock_file)
    _try(descriptor, fcntl.LOCK_SH)


def wait_for_ranks(run: RunDir, patience: float) -> None:
    """Wait until the ranks of earlier sessions have ended.

    Raises
    ------
    BusyError
        They have not after `patience` seconds.
    """
    descriptor = _opened(run.ranks_lock_file)
    try:
        _wait(run, lambda: _try(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) is not False, patience)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    with explained(path):
        # For reading and writing: NFS turns the lock into one that needs both.
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _wait(run: RunDir, condition: Callable[[], bool], patience: float) -> None:
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise BusyError(f"{run.path}: another process works on this run: wait for it or end it")
        time.sleep(POLL_SECONDS)


def _try(descriptor: int, operation: int) -> bool | None:
    """Tell whether the lock was got; None where the file system has none."""
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_alone(run: RunDir, descriptor: int, ended_jobs: Collection[str]) -> bool:
    held = _try(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if held is None:
        _require_no_driver(run, ended_jobs)
    return held is not False


def _require_no_driver(run: RunDir, ended_jobs: Collection[str]) -> None:
    """Where the file system has no locks, go by the process that the manifest names.

    One of this process's own job worked on it before the job was started again.
    """
    driver = read(run.manifest).driver
    own = os.environ.get("SLURM_JOB_ID")
    if driver is not None and driver.job is not None and driver.job in (own, *ended_jobs):
        return
    if driver is not None and not driver.is_this_process() and not driver.is_gone():
        raise BusyError(
            f"{run.path}: process {driver.pid} on {driver.host} may work on this run, and "
            f"this file system has no locks: go on with it on {driver.host}, where one can "
            "see whether that process has ended"
        )
