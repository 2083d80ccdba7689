"""The driver of a farm: hands batches to an engine, seals what comes back."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from hpckit.run.batch import FarmSpec, run_batch
from hpckit.run.engines import Engine
from hpckit.run.sealing import SEAL_SECONDS, Sealer
from hpckit.run.sizing import BatchSizer
from hpckit.store.block import Block, TaskState, make_block
from hpckit.store.progress import Publisher

AHEAD = 2
"""Batches in flight a worker: one that it works on, one that waits for it."""


@dataclass(frozen=True)
class Batch:
    """Tasks that travel together."""

    indices: Sequence[int]
    attempt: int = 1

    def halves(self) -> list[Batch]:
        """Split in two, for the next attempt."""
        middle = len(self.indices) // 2
        parts = (self.indices[:middle], self.indices[middle:])
        return [Batch(part, self.attempt + 1) for part in parts if len(part)]


@dataclass
class FarmDriver:
    """Works off the pending tasks of a farm.

    A batch in flight when a worker died is suspect. Suspects run one at a time, so that a
    second death names the guilty one; it is halved until a single task is left, and that task
    alone fails.

    Attributes
    ----------
    make_engine
        Makes a fresh engine, at the start and after a worker's death.
    pending
        The indices to do, a lazy sequence: a range, or an array.
    total, done, failed
        For the progress that is shown.
    """

    spec: FarmSpec
    make_engine: Callable[[], Engine]
    pending: Sequence[int]
    sealer: Sealer
    publisher: Publisher
    total: int
    done: int = 0
    failed: int = 0
    position: int = 0
    suspects: deque[Batch] = field(default_factory=deque)
    flying: dict[Future[Block], Batch] = field(default_factory=dict)

    def run(self) -> None:
        """Work off all tasks; whatever ends it, what came back is sealed.

        Raises
        ------
        KeyboardInterrupt
            From Ctrl-C or SIGTERM, after sealing.
        StoreError
            Results cannot be written.
        """
        self.engine = self.make_engine()
        self.sizer = BatchSizer(self.engine.workers)
        try:
            while self._submit() or self.flying:
                self._collect()
                self.sealer.seal_if_due()
                self.publisher.publish(self.done, self.failed, self.total)
            self.engine.shutdown()
        except BaseException:
            self.engine.kill()
            raise
        finally:
            self.sealer.seal()

    def _submit(self) -> bool:
        """Fill the engine; tell whether anything is in flight."""
        try:
            while (batch := self._next()) is not None:
                future = self.engine.submit(run_batch, self.spec, batch.indices, batch.attempt)
                self.flying[future] = batch
                if future.done():
                    break
        except BrokenExecutor:
            assert batch is not None
            self.suspects.append(batch)
        return bool(self.flying) or bool(self.suspects)

    def _next(self) -> Batch | None:
        """Return a batch if the engine should have one more."""
        if self.suspects:
            return None if self.flying else self.suspects.popleft()
        left = len(self.pending) - self.position
        if not left or len(self.flying) >= AHEAD * self.engine.workers:
            return None
        stop = self.position + self.sizer.next(left)
        indices = self.pending[self.position : stop]
        self.position = stop
        return Batch(indices)

    def _collect(self) -> None:
        """Wait for a batch, and take all that have come back."""
        alone = len(self.flying) == 1
        workers = multiprocessing.active_children()
        ready, _ = wait(self.flying, timeout=SEAL_SECONDS, return_when=FIRST_COMPLETED)
        broken = []
        for future in ready:
            batch = self.flying.pop(future)
            try:
                block = future.result()
                self._take(block)
                self.sizer.observe(len(block), float(block.details["duration"].values.sum()))
            except BrokenExecutor:
                broken.append(batch)
        if broken or (self.suspects and not self.flying and not ready):
            self._recover(broken, workers, alone)

    def _take(self, block: Block) -> None:
        failures = int(np.count_nonzero(block.state == TaskState.FAILED))
        self.done += len(block) - failures
        self.failed += failures
        self.sealer.add(block)

    def _recover(self, broken: list[Batch], workers: list[BaseProcess], alone: bool) -> None:
        """Start a fresh engine after a worker's death, and find whose fault it was."""
        # All futures of a broken pool fail together, those that were not waited for too.
        broken += self.flying.values()
        self.flying.clear()
        reason = _death(workers)
        self.engine.kill()
        self.engine = self.make_engine()
        if not alone or len(broken) != 1:
            self.suspects.extend(replace(batch, attempt=batch.attempt + 1) for batch in broken)
        elif len(broken[0].indices) > 1:
            self.suspects.extendleft(reversed(broken[0].halves()))
        else:
            self._take(_lost(broken[0], reason))


def _death(workers: list[BaseProcess]) -> str:
    """Say how a worker died, from its exit status."""
    for worker in workers:
        worker.join(timeout=1)
        code = worker.exitcode
        # The pool itself ends the others with SIGTERM.
        if code is not None and code not in (0, -signal.SIGTERM):
            return _cause(code)
    return "the worker process died"


def _cause(code: int) -> str:
    if code > 0:
        return f"the worker process ended with exit status {code}"
    name = signal.Signals(-code).name
    hint = ": often the machine ran out of memory" if -code == signal.SIGKILL else ""
    return f"the worker process was killed by {name}{hint}"


def _lost(batch: Batch, reason: str) -> Block:
    """Return the result of a task that takes its worker down."""
    nothing: list[dict[str, Any] | None] = [None]
    return make_block(batch.indices, nothing, [reason], [np.nan], [np.nan], 0, batch.attempt)
