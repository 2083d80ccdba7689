"""How a process that a test started ends."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass

PATIENCE = 60.0
"""Seconds after which what a test waits for will not come."""


@dataclass
class Ended:
    """A process that has ended."""

    code: int
    stdout: str
    stderr: str


def kill(process: subprocess.Popen[str], signum: int = signal.SIGKILL) -> Ended:
    """Send a signal and wait for the end."""
    process.send_signal(signum)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return Ended(process.returncode, stdout, stderr)
