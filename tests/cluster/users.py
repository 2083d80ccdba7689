"""Who wants the cluster up: somebody by hand, or test processes that share it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from cluster.processes import Process

DOOR = Path("/run/lock")
"""A folder that every machine has: locking it leaves no trace."""
BY_HAND = "by-hand"


@contextlib.contextmanager
def door() -> Iterator[None]:
    """Let only one process at a time bring the cluster up or down."""
    with locked(DOOR, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def locked(folder: Path, kind: int) -> Iterator[None]:
    """Hold a lock on a folder, shared or alone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)


def add(state: Path, pid: int | None) -> None:
    """Note who wants the cluster: a process, or somebody by hand."""
    name = BY_HAND if pid is None else str(pid)
    record = "" if pid is None else Path(f"/proc/{pid}/stat").read_text()
    (state / "users" / name).write_text(record)


def remove(state: Path, pid: int) -> None:
    """Note that a process wants it no longer."""
    (state / "users" / str(pid)).unlink(missing_ok=True)


def present(state: Path) -> list[str]:
    """Return who wants the cluster and still lives."""
    return [path.name for path in (state / "users").glob("*") if _wants(path)]


def _wants(path: Path) -> bool:
    process = Process.read(path)
    return path.name == BY_HAND or (process is not None and process.is_alive())
