"""What tasks and ranks print: into one bounded file a process."""

from __future__ import annotations

import io
import os
import sys
import threading
from multiprocessing.util import Finalize

from hpckit.run.context import current
from hpckit.store.logs import BoundedLog


class TaskStream(io.TextIOBase):
    """A sys.stdout whose lines go to a log with the index of the task that printed them.

    Lines of threads that run no task go to the stream that was there before.
    """

    def __init__(self, log: BoundedLog, fallback: io.TextIOBase) -> None:
        self._log = log
        self._fallback = fallback
        self._partial = threading.local()

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Pass on whole lines; keep the rest until its end comes."""
        index = current.index
        if index is None:
            return self._fallback.write(text)
        whole, newline, rest = (getattr(self._partial, "text", "") + text).rpartition("\n")
        self._partial.text = rest
        if newline:
            lines = "".join(f"[{index}] {line}\n" for line in whole.split("\n"))
            self._log.write(lines.encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        """End a line that stands open, so that the next task begins its own."""
        if current.index is None:
            self._fallback.flush()
        elif getattr(self._partial, "text", ""):
            self.write("\n")


def capture_task_output(log: BoundedLog) -> None:
    """Send what tasks print from now on to the log."""
    for name in ("stdout", "stderr"):
        setattr(sys, name, TaskStream(log, getattr(sys, name)))


def capture_descriptors(log: BoundedLog, forward: int | None = None) -> None:
    """Send descriptors 1 and 2, so what C and Fortran code prints too, to a log.

    Parameters
    ----------
    forward
        A descriptor that gets the same bytes: rank 0 still speaks to the terminal.
    """
    reading, writing = os.pipe()
    for descriptor in (1, 2):
        os.dup2(writing, descriptor)
    os.close(writing)
    pump = threading.Thread(target=_pump, args=(reading, log, forward), daemon=True)
    pump.start()
    Finalize(None, _end_capture, args=(pump,), exitpriority=100)


def _pump(reading: int, log: BoundedLog, forward: int | None) -> None:
    while data := os.read(reading, 1 << 16):
        log.write(data)
        if forward is not None:
            os.write(forward, data)


def _end_capture(pump: threading.Thread) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    silent = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(silent, descriptor)
    pump.join(timeout=2)
