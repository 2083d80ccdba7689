"""What looks after a dask worker process, and ends all that belongs to it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

from distributed import Nanny

from hpckit.processes import ending

GRACE_SECONDS = 2.0
"""What workers get to end by themselves before they are killed."""


class GroupNanny(Nanny):  # type: ignore[misc]
    """Starts another worker where one has ended, after ending what its tasks have started."""

    _group: int | None = None

    def note_end(self, address: str, how: str) -> None:
        """Take note of how the worker at an address ended."""
        raise NotImplementedError(type(self).__name__)

    async def instantiate(self) -> Any:
        """Start a worker, which makes a process group of its own."""
        status = await super().instantiate()
        self._group = self.pid
        return status

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        self.note_end(str(self.worker_address), ending(exitcode))
        kill_group(self._group)
        super()._on_worker_exit_sync(exitcode)

    async def close(self, timeout: float = GRACE_SECONDS, reason: str = "nanny-close") -> Any:
        """End the worker and this."""
        return await super().close(timeout=min(timeout, GRACE_SECONDS), reason=reason)


def kill_group(pid: int | None) -> None:
    """Kill a worker process and what its tasks have started."""
    if pid is None:
        return
    for kill in (os.killpg, os.kill):
        # It may not have made a group yet.
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
