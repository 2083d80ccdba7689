"""How many tasks go into a batch."""

from __future__ import annotations

from dataclasses import dataclass

TARGET_SECONDS = 0.2
"""Long enough that a message costs nothing beside it, short enough to lose when killed."""

TARGET_BYTES = 32 << 20
"""Of results, which a worker and the driver hold in memory."""

LEAST_SHARE = 0.05
"""Of that time each batch takes at the end of a farm: less would be lost on messages again."""

GROWTH = 32
"""Much, since a batch that takes longer than it should is given back as far as it is."""

MAX_TASKS = 1 << 16


@dataclass
class BatchSizer:
    """Guided self-scheduling aimed at a time a batch.

    After Polychronopoulos and Kuck, IEEE Trans. Computers C-36 (1987): a batch is at most the
    share of a worker in what is left, halved, so that all end together. Below that it aims at
    some seconds, growing from a single task, whose length nobody knows yet.

    A worker that works `width` tasks at once gets so many at least, or places in it stay empty.
    """

    workers: int
    width: int = 1
    target_seconds: float = TARGET_SECONDS
    size: int = 0
    task_seconds: float | None = None
    least: int = 0

    def __post_init__(self) -> None:
        self.size = self.size or self.width

    def next(self, left: int) -> int:
        """Return the size of the next batch when `left` tasks are left."""
        share = max(-(-left // (2 * self.workers)), self.least)
        return max(self.width, min(self.size, share, MAX_TASKS))

    def observe(self, tasks: int, seconds: float, nbytes: int) -> None:
        """Learn from a batch whose tasks took `seconds` in all, and its results `nbytes`."""
        each = seconds / tasks
        known = self.task_seconds
        self.task_seconds = each if known is None else 0.7 * known + 0.3 * each
        ideal = self.target_seconds * self.width / max(self.task_seconds, 1e-9)
        wanted = min(ideal, TARGET_BYTES * tasks / max(nbytes, 1))
        self.least = int(min(LEAST_SHARE * ideal, wanted))
        most = self.size * GROWTH if tasks >= self.size else self.size
        self.size = max(self.width, int(min(wanted, most, MAX_TASKS)))
