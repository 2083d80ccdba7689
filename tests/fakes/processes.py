"""Processes, known by their number and the time they started at."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LAUNCH = Path(__file__).with_name("launch.py")

Record = list[int]
"""Number and start time, as they stand in a job's file."""


def record(pid: int) -> Record | None:
    """Return what identifies a live process."""
    found = _stat(pid)
    return [pid, int(found[19])] if found and found[0] not in "ZX" else None


def is_alive(known: Record | None) -> bool:
    """Tell whether a process that was recorded still runs."""
    return known is not None and record(known[0]) == known


def send(known: Record | None, number: int) -> None:
    """Send a signal to a process that was recorded, if it still runs."""
    if known is not None and is_alive(known):
        with suppress(ProcessLookupError):
            os.kill(known[0], number)


def below(pid: int) -> list[Record]:
    """Return all live processes below one, without other jobs that were submitted there."""
    children: dict[int, list[Record]] = {}
    for child, parent in _all():
        children.setdefault(parent, []).append(child)
    found, left = [], list(children.get(pid, []))
    while left:
        child = left.pop()
        if not _is_supervisor(child[0]):
            found.append(child)
            left += children.get(child[0], [])
    return found


def supervise(folder: Path, job: int, key: str, log: Path) -> Record | None:
    """Start the supervisor of an element, in a session of its own, and identify it."""
    python = os.environ.get("FAKE_SLURM_PYTHON") or sys.executable
    argv = [python, "-SEs", str(LAUNCH), "stepd", str(job), key]
    null = os.open(os.devnull, os.O_RDWR)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    pid = os.posix_spawn(
        python,
        argv,
        {**os.environ, "FAKE_SLURM": str(folder)},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, source, target)
            for source, target in ((null, 0), (output, 1), (output, 2))
        ],
        setsigmask={signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM},
        setsid=True,
    )
    os.close(null)
    os.close(output)
    return record(pid)


def _stat(pid: int) -> list[str] | None:
    """Return the fields after the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None


def _all() -> Iterator[tuple[Record, int]]:
    """Return all live processes with their parents."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - much quicker
        if name.isdigit() and (found := _stat(int(name))) and found[0] not in "ZX":
            yield [int(name), int(found[19])], int(found[1])


def _is_supervisor(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(LAUNCH) in words and b"stepd" in words
