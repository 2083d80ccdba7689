"""When a call counts as lost, whose tasks may take so long and no longer."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

from hpckit.run.batch import BATCH_SECONDS

GRACE_SECONDS = 60.0
"""What a worker gets beyond the time that its tasks may take, before it counts as lost.

A worker's first batch imports the job, and whatever that imports, from a slow file system maybe.
"""

TOGETHER_SECONDS = 1.0
"""Calls that fall due within it were handed in together: some wait behind the others."""


class Deadlines:
    """Of calls at an engine; without a time limit there are none.

    Parameters
    ----------
    task_seconds
        The limit of a task.
    ahead
        How many calls a worker has, so that the last one waits for all others.
    """

    def __init__(self, task_seconds: float | None, ahead: int) -> None:
        self._seconds = task_seconds and ahead * (BATCH_SECONDS + task_seconds) + GRACE_SECONDS
        self._due: dict[Future[Any], float] = {}
        self._abandoned: dict[Future[Any], float] = {}

    def add(self, call: Future[Any]) -> None:
        """Note that a call is handed in."""
        if self._seconds:
            self._due[call] = time.monotonic() + self._seconds

    def drop(self, call: Future[Any]) -> bool:
        """Forget a call that has ended; tell whether that is because it was late."""
        self._due.pop(call, None)
        return time.monotonic() < self._abandoned.pop(call, -GRACE_SECONDS) + GRACE_SECONDS

    def clear(self) -> None:
        """Forget all calls."""
        self._due.clear()
        self._abandoned.clear()

    def take_late(self) -> list[Future[Any]]:
        """Return the calls that are late; they get the same time once more.

        One that merely waited behind another begins now, with a worker that is not to blame.
        """
        now = time.monotonic()
        if not self._seconds or not any(now > due for due in self._due.values()):
            return []
        late = [call for call, due in self._due.items() if now > due - TOGETHER_SECONDS]
        for call in late:
            self._due[call] = now + self._seconds
            self._abandoned[call] = now
        return late
