"""What tasks and ranks print: into one bounded file a process."""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING

from hpckit.run.context import Current, current
from hpckit.store.logs import BoundedLog

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

LONGEST_LINE = 1 << 16
"""Bytes or characters after which a line is broken, since it has to be held until its end."""


class TaskStream(io.TextIOBase):
    """A sys.stdout whose lines go to a log with the index of the task that printed them.

    Lines of threads that run no task go to the stream that was there before, and so does what
    is written to its descriptor.

    Attributes
    ----------
    buffer
        Takes bytes, as that of any sys.stdout.
    """

    encoding = "utf-8"

    def __init__(self, log: BoundedLog, fallback: io.TextIOBase) -> None:
        self.buffer = _Bytes(self)
        self._log = log
        self._fallback = fallback

    def fileno(self) -> int:
        """Return the descriptor of the stream that was there before, for subprocesses."""
        return self._fallback.fileno()

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Pass on whole lines; keep the rest until its end comes."""
        now = current.get()
        if now is None or now.index is None:
            return self._fallback.write(text)
        held = now.open_lines.pop(self, "") + text
        if len(held) > LONGEST_LINE and not held.endswith("\n"):
            held += "\n"
        whole, newline, rest = held.rpartition("\n")
        if rest:
            now.open_lines[self] = rest
        if newline:
            lines = "".join(f"[{now.index}] {line}\n" for line in whole.split("\n"))
            self._log.write(lines.encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        """Flush the stream that was there before; a task's open line waits for its end."""
        now = current.get()
        if now is None or now.index is None:
            self._fallback.flush()


class _Bytes(io.BufferedIOBase):
    """Passes bytes on to a stream of text."""

    def __init__(self, stream: io.TextIOBase) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        raw = bytes(data)
        self._stream.write(raw.decode(errors="replace"))
        return len(raw)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


class Descriptors:
    """Descriptors 1 and 2, so what C and Fortran code prints, on their way to a log.

    Parameters
    ----------
    forward
        A descriptor that gets the same bytes: rank 0 still speaks to the terminal.

    Attributes
    ----------
    current
        What this process is at: its lines bear the index of the task.
    """

    def __init__(self, log: BoundedLog, forward: int | None = None) -> None:
        self.current = Current()
        self._log = log
        self._forward = forward
        self._partial = b""
        self._lock = threading.Lock()
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        for descriptor in (1, 2):
            os.dup2(writing, descriptor)
        os.close(writing)
        self._poll = select.poll()
        self._poll.register(self._reading, select.POLLIN)
        self._pump = threading.Thread(target=self._run, daemon=True)
        self._pump.start()
        Finalize(None, self._end, exitpriority=100)

    def end_task(self) -> None:
        """Take all that the task has printed, so that the next one's is told apart."""
        while self._poll.poll(0) and self._take():
            pass
        with self._lock:
            if self._partial:
                self._write(b"\n")

    def _run(self) -> None:
        while select.select([self._reading], [], []) and self._take():
            pass

    def _take(self) -> bool:
        """Take what is there now; tell whether there can be more."""
        with self._lock:
            try:
                data = os.read(self._reading, 1 << 16)
            except BlockingIOError:
                return True
            if data:
                self._write(data)
        return bool(data)

    def _write(self, data: bytes) -> None:
        if self._forward is not None:
            _write_all(self._forward, data)
        index = self.current.index
        if index is None:
            self._log.write(data)
            return
        held = self._partial + data
        if len(held) > LONGEST_LINE and not held.endswith(b"\n"):
            held += b"\n"
        whole, newline, self._partial = held.rpartition(b"\n")
        if newline:
            tag = f"[{index}] ".encode()
            self._log.write(b"".join(tag + line + b"\n" for line in whole.split(b"\n")))

    def _end(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        silent = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(silent, descriptor)
        self._pump.join(timeout=2)


_descriptors: Descriptors | None = None


def capture_task_output(log: BoundedLog) -> None:
    """Send what tasks print from now on to the log."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, TaskStream):
            stream = stream._fallback
        setattr(sys, name, TaskStream(log, stream))


def capture_descriptors(log: BoundedLog, forward: int | None = None) -> None:
    """Send all that this process prints from now on to a log."""
    global _descriptors
    _descriptors = Descriptors(log, forward)


def attend(now: Current) -> None:
    """Let what this thread prints from now on, and C code in this process, bear `now.index`."""
    current.set(now)
    if _descriptors is not None:
        _descriptors.current = now


def end_task(now: Current) -> None:
    """Take all that a task has printed, and end the lines that it left open."""
    for stream in list(now.open_lines):
        stream.write("\n")
    if _descriptors is not None:
        _descriptors.end_task()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
