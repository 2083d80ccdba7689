"""When a call counts as lost, whose tasks may take so long and no longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from typing import Any, TypeAlias

from hpckit.run.batch import BATCH_SECONDS

Call: TypeAlias = Future[Any]

GRACE_SECONDS = 60.0
"""What a worker gets beyond the time that its tasks may take, before it counts as lost.

A worker's first batch imports the job, and whatever that imports, from a slow file system maybe.
"""

TOGETHER_SECONDS = 1.0
"""Calls that fall due within it were handed in together: some wait behind the others."""


LOOK_SECONDS = 1.0
"""Between two questions which calls wait."""


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
        self._due: dict[Call, float] = {}
        self._abandoned: dict[Call, float] = {}
        self._looked_at = 0.0

    def add(self, call: Call) -> None:
        """Note that a call is handed in."""
        if self._seconds:
            self._due[call] = time.monotonic() + self._seconds

    def drop(self, call: Call) -> bool:
        """Forget a call that has ended; tell whether that is because it was late."""
        self._due.pop(call, None)
        return time.monotonic() < self._abandoned.pop(call, -GRACE_SECONDS) + GRACE_SECONDS

    def clear(self) -> None:
        """Forget all calls."""
        self._due.clear()
        self._abandoned.clear()

    def take_late(self, waiting: Callable[[Collection[Call]], Iterable[Call]]) -> list[Call]:
        """Return the calls that are late; they get the same time once more.

        One that merely waited behind another begins now, with a worker that is not to blame.

        Parameters
        ----------
        waiting
            Tells which of some calls are known to wait for a worker: their time has not begun.
        """
        now = time.monotonic()
        if self._seconds and now > self._looked_at + LOOK_SECONDS:
            self._looked_at = now
            self._due |= dict.fromkeys(waiting(self._due.keys()), now + self._seconds)
        if not self._seconds or not any(now > due for due in self._due.values()):
            return []
        late = [call for call, due in self._due.items() if now > due - TOGETHER_SECONDS]
        for call in late:
            self._due[call] = now + self._seconds
            self._abandoned[call] = now
        return late
