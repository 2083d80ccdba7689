"""A log that cannot fill the disk."""

from __future__ import annotations

import os
import threading
from pathlib import Path

LIMIT = 4 << 20
"""Bytes after which a log ends; a job that prints in its inner loop must not fill the disk."""

_END = f"\n[hpckit: the log ends here, at its limit of {LIMIT >> 20} MiB]\n".encode()


class BoundedLog:
    """A file that takes `LIMIT` bytes and no more; made at the first write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._left = LIMIT
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Append bytes; a full disk or log swallows them, since no result hangs on a log."""
        with self._lock:
            if self._left <= 0:
                return
            try:
                if self._descriptor is None:
                    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                    self._descriptor = os.open(self.path, flags, 0o600)
                    self._left -= os.fstat(self._descriptor).st_size
                os.write(self._descriptor, data[: max(self._left, 0)])
                self._left -= len(data)
                if self._left <= 0:
                    os.write(self._descriptor, _END)
            except OSError:
                self._left = 0
