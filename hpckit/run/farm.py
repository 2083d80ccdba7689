"""The driver of a farm: hands batches to an engine, seals what comes back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.errors import HpckitError
from hpckit.run.batch import FarmSpec, Outcome, run_batch
from hpckit.run.engines import Engine
from hpckit.run.sealing import SEAL_SECONDS, Sealer
from hpckit.run.sizing import BatchSizer
from hpckit.run.usage import Used
from hpckit.store.block import Block, TaskState, make_block
from hpckit.store.progress import Publisher

REASON_LENGTH = 2000
"""Of a failure's text go into the progress; a traceback's end says most."""

AHEAD = 2
"""Batches in flight a worker: one that it works on, one that waits for it."""


@dataclass(frozen=True)
class Batch:
    """Tasks that travel together."""

    indices: Sequence[int]
    attempt: int = 1

    def again(self) -> list[Batch]:
        """Return what to try after its worker died: the whole once more, then the halves."""
        middle = len(self.indices) // 2 if self.is_guilty else 0
        parts = (self.indices[:middle], self.indices[middle:])
        return [Batch(part, self.attempt + 1) for part in parts if len(part)]

    @property
    def plain(self) -> Sequence[int]:
        """The indices as they travel."""
        return self.indices if isinstance(self.indices, range) else list(self.indices)

    @property
    def is_guilty(self) -> bool:
        """Whether the death of its worker is its own fault: all but first attempts are alone."""
        return self.attempt > 1


@dataclass
class FarmDriver:
    """Works off the pending tasks of a farm.

    What a worker gives back of a batch unfinished, because its time was up, is pending again. A
    batch in flight when a worker died is suspect. Suspects run one at a time, so that a
    second death names the guilty one; it is halved until a single task is left, and that task
    alone fails.

    Attributes
    ----------
    make_engine
        Makes a fresh engine, at the start and after a worker's death.
    pending
        The indices to do, in lazy sequences: ranges, or arrays.
    total, done, failed
        For the progress that is shown.
    tried
        Shape (tasks,): the attempts that earlier sessions made; None stands for zeros.
    used
        By each worker so far, by process id.
    reason
        The end of the first failure's traceback.
    drain_until
        Set once no more is to be begun: when what still runs is given up.
    """

    spec: FarmSpec
    make_engine: Callable[[], Engine]
    pending: deque[Sequence[int]]
    sealer: Sealer
    publisher: Publisher
    total: int
    done: int = 0
    failed: int = 0
    tried: NDArray[np.int32] | None = None
    used: dict[int, Used] = field(default_factory=dict)
    reason: str | None = None
    drain_until: float | None = None
    suspects: deque[Batch] = field(default_factory=deque)
    flying: dict[Future[Outcome], Batch] = field(default_factory=dict)
    trouble: HpckitError | None = None

    def run(self) -> None:
        """Work off all tasks; whatever ends it, what came back is sealed.

        Raises
        ------
        KeyboardInterrupt
            From Ctrl-C or SIGTERM, after sealing.
        StoreError
            Results cannot be written.
        LaunchError
            No task can be done as things are: its program is not there, say.
        """
        self.engine = self.make_engine()
        self.sizer = BatchSizer(self.engine.workers)
        try:
            while (self._submit() or self.flying) and not self._is_late():
                self._collect()
                self.sealer.seal_if_due()
                self.publisher.publish(self.done, self.failed, self.total, self.reason)
            if self.flying:
                self.engine.kill()
            else:
                self.engine.close()
        except BaseException:
            self.engine.kill()
            raise
        finally:
            self.sealer.seal()

    def drain(self, seconds: float) -> None:
        """Begin no more batches, and give up after `seconds` what then still runs.

        A signal handler may call it.
        """
        self.drain_until = time.monotonic() + max(seconds, 0.0)

    def _is_late(self) -> bool:
        return self.drain_until is not None and time.monotonic() > self.drain_until

    def _submit(self) -> bool:
        """Fill the engine; tell whether anything is in flight."""
        while (batch := self._next()) is not None:
            try:
                future = self.engine.submit(run_batch, self.spec, batch.plain, batch.attempt)
            except BrokenExecutor:
                # Nobody has begun it; what is in flight comes back broken.
                self.suspects.appendleft(batch)
                if self.flying:
                    break
                self._renew()
                continue
            self.flying[future] = batch
            if future.done():
                break
        return bool(self.flying)

    def _next(self) -> Batch | None:
        """Return a batch if the engine should have one more."""
        if self.drain_until is not None:
            return None
        if self.suspects:
            return None if self.flying else self.suspects.popleft()
        left = sum(map(len, self.pending))
        if not left or len(self.flying) >= AHEAD * self.engine.workers:
            return None
        size = self.sizer.next(left)
        indices = self.pending.popleft()
        if size < len(indices):
            self.pending.appendleft(indices[size:])
        return Batch(indices[:size])

    def _collect(self) -> None:
        """Wait for a batch, and take all that have come back."""
        ready, _ = wait(self.flying, timeout=SEAL_SECONDS, return_when=FIRST_COMPLETED)
        lost = self._take_results(ready)
        if lost:
            # All futures of a broken pool end together, some with a result that came in time.
            ready, _ = wait(self.flying, timeout=SEAL_SECONDS)
            lost += self._take_results(ready)
            self._recover([*lost, *self.flying.values()])

    def _take_results(self, futures: Iterable[Future[Outcome]]) -> list[Batch]:
        """Take what came back, and return the batches whose worker died."""
        lost = []
        for future in futures:
            batch = self.flying.pop(future)
            try:
                outcome = future.result()
            except BrokenExecutor:
                lost.append(batch)
            else:
                self._take_outcome(batch, outcome)
        if self.trouble is not None:
            raise self.trouble
        return lost

    def _take_outcome(self, batch: Batch, outcome: Outcome) -> None:
        """Take what came of a batch; what was not come to is to be done."""
        self.trouble = self.trouble or outcome.trouble
        self.used[outcome.used.pid] = outcome.used
        block = outcome.block
        if block is not None:
            self._take(block)
            self.sizer.observe(len(block), float(block.details["duration"].values.sum()))
        rest = batch.indices[0 if block is None else len(block) :]
        if rest and batch.is_guilty:
            self.suspects.appendleft(Batch(rest, batch.attempt))
        elif rest:
            self.pending.appendleft(rest)

    def _take(self, block: Block) -> None:
        if self.tried is not None:
            block.details["attempts"].values[:] += self.tried[block.task]
        failures = int(np.count_nonzero(block.state == TaskState.FAILED))
        if failures and self.reason is None:
            self.reason = next(filter(None, block.details["error"].values))[-REASON_LENGTH:]
        self.done += len(block) - failures
        self.failed += failures
        self.sealer.add(block)

    def _recover(self, lost: list[Batch]) -> None:
        """Find whose fault a worker's death was, with a fresh engine."""
        self.flying.clear()
        reason = self._renew()
        for batch in reversed(lost):
            if batch.is_guilty and len(batch.indices) == 1:
                self._take(_lost(batch, reason))
            else:
                self.suspects.extendleft(reversed(batch.again()))

    def _renew(self) -> str:
        """Replace an engine whose worker has died; return how it died."""
        reason = self.engine.death()
        self.engine = self.make_engine()
        return reason


def _lost(batch: Batch, reason: str) -> Block:
    """Return the result of a task that takes its worker down."""
    nothing: list[dict[str, Any] | None] = [None]
    return make_block(batch.indices, nothing, [reason], [np.nan], [np.nan], 0, batch.attempt)
