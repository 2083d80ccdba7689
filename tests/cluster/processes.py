"""Processes that are known by their number and the time they started at.

The record of a process is its own /proc/PID/stat, written before it becomes the program it is
to be: whoever dies in the meantime, nothing runs that is not recorded, and a number that the
system has given to another process since is not taken for ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster.waiting import until

RECORD_AND_BECOME = 'cat /proc/$$/stat > "$0" && exec "$@"'
PATIENCE = 20.0
ALONE = ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child")
"""Makes a program process 1 of its own kind: all that it starts dies with it."""


@dataclass(frozen=True)
class Process:
    """A process that was recorded."""

    pid: int
    started: str

    @classmethod
    def read(cls, record: Path) -> Process | None:
        """Return the process of a record, None if it got no further than an empty one."""
        found = _stat(record)
        return found and found[0]

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the live process of a number."""
        found = _stat(Path(f"/proc/{pid}/stat"))
        return found[0] if found and found[1] not in "ZX" else None

    def is_alive(self) -> bool:
        """Tell whether it still runs."""
        return Process.of(self.pid) == self

    def children(self) -> list[int]:
        """Return the processes it started itself."""
        try:
            return [
                int(child)
                for children in Path(f"/proc/{self.pid}/task").glob("*/children")
                for child in children.read_text().split()
            ]
        except OSError:
            return []

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the first process of its namespace, with it all others, and wait for that."""
        if number != signal.SIGKILL and self.is_alive():
            self._signal(number)
        gone = self._is_gone if number == signal.SIGKILL else lambda: not self.is_alive()
        until(gone, PATIENCE, f"process {self.pid} ends")

    def _is_gone(self) -> bool:
        """Kill it again as long as it lives: it may just have been about to start a child."""
        if not self.is_alive():
            return True
        self._signal(signal.SIGKILL)
        return False

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.children() or [self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def start(record: Path, argv: list[str], log: Path, env: dict[str, str]) -> None:
    """Start a program that outlives us."""
    with log.open("ab") as output:
        subprocess.Popen(
            ["sh", "-c", RECORD_AND_BECOME, str(record), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd="/",
            start_new_session=True,
        )


def _stat(path: Path) -> tuple[Process, str] | None:
    """Read number, start time and state; the name in between may hold anything."""
    try:
        number, _, rest = path.read_text().partition(" (")
        fields = rest.rpartition(") ")[2].split()
        return Process(int(number), fields[19]), fields[0]
    except (OSError, ValueError, IndexError):
        return None
