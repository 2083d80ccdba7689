"""What a farm's driver has still to hand out, and in which order."""

from __future__ import annotations

import heapq
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.run.sizing import BatchSizer
from hpckit.store.tree import aligned

FIRST_WAIT = 1.0
LONGEST_WAIT = 300.0
"""Seconds until a failed task is tried again: at first, and at most."""


class Scattered(Sequence[int]):
    """Indices with gaps, 8 bytes each; a slice is a view."""

    def __init__(self, indices: NDArray[np.int64]) -> None:
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices.tolist())

    def __getitem__(self, key: Any) -> Any:
        found = self.indices[key]
        return Scattered(found) if isinstance(key, slice) else int(found)


@dataclass(frozen=True)
class Batch:
    """Tasks that travel together.

    Attributes
    ----------
    deaths
        How often a worker died at it, or at a larger one that it is a part of.
    own_deaths
        How often a worker died at it since it is a single task.
    failures
        How often each of its tasks has failed by itself.
    alone
        Whether nothing else may be in flight, so that a second death names the guilty one.
    """

    indices: Sequence[int]
    deaths: int = 0
    own_deaths: int = 0
    failures: int = 0
    alone: bool = False

    @property
    def attempt(self) -> int:
        """Which attempt at its tasks this is, from 1."""
        return 1 + self.deaths + self.failures

    @property
    def plain(self) -> Sequence[int]:
        """The indices as they travel."""
        return self.indices if isinstance(self.indices, range) else list(self.indices)

    def part(self, indices: Sequence[int]) -> Batch:
        """Return the same for some of its tasks."""
        return replace(self, indices=indices)

    def again(self, *, alone: bool = False, halve: bool = False) -> list[Batch]:
        """Return what to try after its worker died: the whole once more, then the halves."""
        middle = len(self.indices) // 2 if self.deaths or halve else 0
        parts = (self.indices[:middle], self.indices[middle:])
        return [
            replace(
                self,
                indices=part,
                deaths=self.deaths + 1,
                own_deaths=self.own_deaths + (len(self.indices) == 1),
                alone=alone,
            )
            for part in parts
            if len(part)
        ]


@dataclass
class Agenda:
    """The tasks to do: those at which a worker died, those that failed and wait, all others.

    Attributes
    ----------
    pending
        In lazy sequences: ranges, or arrays.
    aligned
        Whether batches are to end where results that are merged make few nodes of a tree.
    """

    pending: deque[Sequence[int]]
    suspects: deque[Batch] = field(default_factory=deque)
    waiting: list[tuple[float, int, Batch]] = field(default_factory=list)
    """A heap: when it is due, by the monotonic clock; the task; the batch of it alone."""
    aligned: bool = False

    def next(self, sizer: BatchSizer, flying: int) -> Batch | None:
        """Return the next batch, if there is one now, with `flying` others in flight."""
        if self.suspects:
            return None if self.suspects[0].alone and flying else self.suspects.popleft()
        if self.waiting and self.waiting[0][0] <= time.monotonic():
            return heapq.heappop(self.waiting)[-1]
        left = sum(map(len, self.pending))
        if not left:
            return None
        indices = self.pending.popleft()
        size = sizer.next(left)
        if self.aligned:
            size = min(size, bisect_left(indices, aligned(indices[0], size)))
        if size < len(indices):
            self.pending.appendleft(indices[size:])
        return Batch(indices[:size])

    def due(self) -> int:
        """Return how many tasks wait for nothing but a worker."""
        now = time.monotonic()
        suspects = sum(len(batch.indices) for batch in self.suspects)
        again = sum(due <= now for due, _, _ in self.waiting)
        return sum(map(len, self.pending)) + suspects + again

    def has_died(self, batch: Batch, *, alone: bool = False, halve: bool = False) -> None:
        """Put a batch whose worker died before all others."""
        self.suspects.extendleft(reversed(batch.again(alone=alone, halve=halve)))

    def put_back(self, rest: Batch) -> None:
        """Put what a worker did not come to before all others."""
        if rest.deaths or rest.failures:
            self.suspects.appendleft(rest)
        else:
            self.pending.appendleft(rest.indices)

    def retry(self, batch: Batch) -> None:
        """Have a batch of one task, which has failed, tried again after a while."""
        seconds = min(FIRST_WAIT * 2 ** min(batch.failures - 1, 20), LONGEST_WAIT)
        heapq.heappush(self.waiting, (time.monotonic() + seconds, batch.indices[0], batch))

    def seconds_to_next(self) -> float | None:
        """Return when the next failed task is due."""
        return max(self.waiting[0][0] - time.monotonic(), 0.0) if self.waiting else None
