"""What sbatch asks for, checked as sbatch does itself."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fakes import clock
from fakes.failures import Failure
from fakes.sbatch_options import Chosen

T = TypeVar("T")

_SIGNAL = re.compile(r"(?:(?P<who>[RB]+):)?(?P<name>\w+)(?:@(?P<seconds>\d+))?")
WARNING = 60
"""Seconds before the time limit, if `--signal` does not say."""


class Request:
    """A script that is to be queued, with its options."""

    def __init__(self, chosen: Chosen, words: list[str], line: str) -> None:
        self.chosen, self.line = chosen, line
        self.arguments = words[1:]
        self.command = str(Path.cwd() / words[0]) if words else "(null)"
        self.limit = self._checked("time", clock.limit)
        self.warning = self._checked("signal", _warning)
        self._checked("open-mode", _open_mode)
        self.nodes = int(chosen.get("nodes", "1").split("-")[0])
        tasks = int(chosen.get("ntasks", self.nodes))
        self.cpus = max(tasks * int(chosen.get("cpus-per-task", 1)), self.nodes)

    def _checked(self, name: str, read: Callable[[str], T]) -> T | None:
        """Read an option's value; sbatch says which one is wrong."""
        try:
            return read(self.chosen[name]) if name in self.chosen else None
        except ValueError:
            raise Failure(f"sbatch: error: Invalid --{name} specification", status=255) from None


def signal_number(name: str) -> int:
    """Read a signal, such as `USR1`, `SIGUSR1` or `10`; ValueError if it is none."""
    if name.isdigit() and 0 < int(name) < signal.NSIG:
        return int(name)
    try:
        return int(signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"])
    except KeyError:
        raise ValueError(name) from None


def _warning(text: str) -> tuple[int, int] | None:
    """Return a signal and how long before the end it comes.

    It goes to the script only with `B:`, else to the job's steps, which the fake has none of.
    """
    match = _SIGNAL.fullmatch(text)
    if match is None or int(match["seconds"] or WARNING) > 65535:
        raise ValueError(text)
    number = signal_number(match["name"])
    return (number, int(match["seconds"] or WARNING)) if "B" in (match["who"] or "") else None


def _open_mode(text: str) -> None:
    if text[:1] not in ("a", "A", "t", "T"):
        raise ValueError(text)
