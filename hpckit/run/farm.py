"""The driver of a farm: hands batches to an engine, seals what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.errors import HpckitError, LaunchError
from hpckit.processes import uninterrupted
from hpckit.run.agenda import Agenda, Batch, Scattered
from hpckit.run.batch import BATCH_SECONDS, FarmSpec, Outcome, run_batch
from hpckit.run.deadlines import Deadlines
from hpckit.run.engines import AHEAD, Engine, WorkerDied
from hpckit.run.engines.pilots import Backlog
from hpckit.run.sealing import SEAL_SECONDS, Sealer
from hpckit.run.sizing import BatchSizer
from hpckit.run.snapshots import Snapshots
from hpckit.run.timelimit import over_limit
from hpckit.run.usage import Used
from hpckit.spec.rules import TaskRules
from hpckit.store.block import Block, TaskState, make_block
from hpckit.store.progress import Publisher
from hpckit.store.trace import MusterTrace
from hpckit.units import Memory

REASON_LENGTH = 2000
"""Of a failure's text go into the progress; a traceback's end says most."""

MOST_RENEWALS = 40
"""Of an engine without any result; it takes half of them to find one guilty task in a batch."""


@dataclass
class FarmDriver:
    """Works off the pending tasks of a farm.

    What a worker gives back of a batch unfinished, because its time was up, is pending again.
    A batch whose worker died is tried again as a whole, then halved until a single task is
    left, and that task alone fails. Where the engine cannot tell at which batch its worker
    died, all those in flight are suspect, and tried one at a time.

    Attributes
    ----------
    make_engine
        Makes a fresh engine, at the start and after the death of one.
    trace
        Of how many workers there are, where they come and go.
    snapshots
        Show what is done so far.
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
    gave_up
        Why it stopped by itself before all was done.
    """

    spec: FarmSpec
    make_engine: Callable[[], Engine]
    agenda: Agenda
    sealer: Sealer
    publisher: Publisher
    total: int
    trace: MusterTrace
    snapshots: Snapshots | None = None
    rules: TaskRules = field(default_factory=TaskRules)
    done: int = 0
    failed: int = 0
    tried: NDArray[np.int32] | None = None
    used: dict[int, Used] = field(default_factory=dict)
    reason: str | None = None
    drain_until: float | None = None
    gave_up: str | None = None
    new_failures: int = 0
    renewals: int = 0
    flying: dict[Future[Outcome], Batch] = field(default_factory=dict)
    ended: SimpleQueue[Future[Outcome]] = field(default_factory=SimpleQueue)
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
            No task can be done as things are: its program is not there, or workers only die.
        """
        self.engine = self.make_engine()
        self.sizer = BatchSizer(self.engine.workers, self.engine.width, self.engine.batch_seconds)
        self.deadlines = Deadlines(self.rules.task_timeout, AHEAD)
        try:
            while self._submit() and not self._is_late():
                self._collect()
                for late in self.deadlines.take_late(self.engine.waiting):
                    self.engine.abandon(late)
                if self.sealer.seal_if_due() and self.snapshots is not None:
                    self.snapshots.take_if_due()
                muster = self.engine.muster()
                self.publisher.publish(self.done, self.failed, self.total, self.reason, muster)
                self.trace.note(muster)
            if self.flying:
                self._stop()
            else:
                self.engine.close()
        except BaseException:
            self._stop()
            raise
        finally:
            try:
                self.sealer.seal()
            finally:
                self.engine.finish()

    def drain(self, seconds: float) -> None:
        """Begin no more batches, and give up after `seconds` what then still runs.

        A signal handler may call it.
        """
        self.drain_until = time.monotonic() + max(seconds, 0.0)

    def _is_late(self) -> bool:
        return self.drain_until is not None and time.monotonic() > self.drain_until

    def _submit(self) -> bool:
        """Fill the engine; tell whether there is anything to wait for."""
        self.engine.expect(Backlog(self._left(), self.sizer.task_seconds))
        while (batch := self._next()) is not None:
            try:
                future = self.engine.submit(run_batch, self.spec, batch.plain, batch.attempt)
            except BrokenExecutor:
                # Nobody has begun it; what is in flight comes back broken.
                self.agenda.put_back(batch)
                if self.flying:
                    break
                self._renew()
                continue
            self._await(batch, future)
            if future.done():
                break
        return bool(self.flying or (self.agenda.waiting and self.drain_until is None))

    def _left(self) -> int:
        """Return how many tasks are to be done now, those in flight included."""
        if self.drain_until is not None:
            return 0
        return self.agenda.due() + sum(len(batch.indices) for batch in self.flying.values())

    def _await(self, batch: Batch, future: Future[Outcome]) -> None:
        self.flying[future] = batch
        self.deadlines.add(future)
        future.add_done_callback(self.ended.put)

    def _stop(self) -> None:
        """End the engine at once; what it gives back whole is taken, whatever else was lost."""
        self.engine.kill()
        # Not those in the queue alone: Ctrl-C may have come while one was taken from it.
        while ended := [future for future in self.flying if future.done()]:
            for future in ended:
                batch = self.flying.pop(future)
                if not future.cancelled() and future.exception() is None:
                    self._take_outcome(batch, future.result())

    def _next(self) -> Batch | None:
        """Return a batch if the engine should have one more."""
        full = not self.engine.has_room(len(self.flying))
        if self.drain_until is not None or full or self._has_one_alone():
            return None
        return self.agenda.next(self.sizer, len(self.flying))

    def _has_one_alone(self) -> bool:
        return len(self.flying) == 1 and next(iter(self.flying.values())).alone

    def _collect(self) -> None:
        """Wait for a batch, and take all that have come back."""
        due = self.agenda.seconds_to_next()
        look = min(SEAL_SECONDS, self.engine.look_seconds)
        broken = self._take_ended(look if due is None else min(due, look))
        if broken:
            # All futures of a broken engine end together, some with a result that came in time.
            end = time.monotonic() + SEAL_SECONDS
            while self.flying and (left := end - time.monotonic()) > 0:
                broken += self._take_ended(left)
            self._recover([*broken, *self.flying.values()])

    def _take_ended(self, seconds: float) -> list[Batch]:
        """Take what comes back within some seconds; return the batches that the engine lost."""
        broken = []
        try:
            future = self.ended.get(timeout=max(seconds, 0.0))
            while True:
                # Ctrl-C waits: what is taken in part would be lost.
                with uninterrupted():
                    batch = self.flying.pop(future, None)
                    is_late = self.deadlines.drop(future)
                    if batch is not None and not self._take_result(batch, future, is_late):
                        broken.append(batch)
                future = self.ended.get_nowait()
        except Empty:
            pass
        if self.trouble is not None:
            raise self.trouble
        return broken

    def _take_result(self, batch: Batch, future: Future[Outcome], is_late: bool) -> bool:
        """Take what came of a batch; tell whether the engine is still good."""
        try:
            outcome = future.result()
        except WorkerDied as death:
            if is_late:
                self._was_late(batch)
            else:
                self._has_died(batch, death, alone=False)
        except BrokenExecutor:
            return False
        else:
            self._take_outcome(batch, outcome)
        return True

    def _take_outcome(self, batch: Batch, outcome: Outcome) -> None:
        """Take what came of a batch; what was not come to is to be done."""
        self.trouble = self.trouble or outcome.trouble
        self.used[outcome.used.pid] = outcome.used
        rest = batch.indices
        if outcome.block is not None:
            rest = _rest(batch.indices, outcome.block.task)
            seconds = float(outcome.block.details["duration"].values.sum())
            self.sizer.observe(len(outcome.block), seconds, outcome.nbytes)
            self._take(self._without_retries(batch, outcome.block))
        if outcome.running is not None:
            tasks, future = outcome.running
            rest = _rest(rest, tasks)
            self._await(batch.part(Scattered(tasks)), future)
        if len(rest):
            self.agenda.put_back(batch.part(rest))

    def _without_retries(self, batch: Batch, block: Block) -> Block:
        """Return a block without the tasks that are tried again, and put these down for it."""
        if batch.failures >= self.rules.task_retries:
            return block
        failed = block.state == TaskState.FAILED
        for index in block.task[failed].tolist():
            again = replace(batch, indices=[index], failures=batch.failures + 1, alone=False)
            self.agenda.retry(again)
        return block.only(~failed) if failed.any() else block

    def _take(self, block: Block) -> None:
        self.renewals = 0
        if self.tried is not None:
            block.details["attempts"].values[:] += self.tried[block.task]
        failures = int(np.count_nonzero(block.state == TaskState.FAILED))
        if failures and self.reason is None:
            self.reason = next(filter(None, block.details["error"].values))[-REASON_LENGTH:]
        self.done += len(block) - failures
        self.failed += failures
        self.new_failures += failures
        if len(block):
            self.sealer.add(block)
        limit = self.rules.max_failures
        if limit is not None and self.new_failures >= limit and self.gave_up is None:
            self.gave_up = f"{self.new_failures} tasks have failed, with max_failures = {limit}"
            self.drain(2 * BATCH_SECONDS)

    def _has_died(self, batch: Batch, death: WorkerDied, *, alone: bool) -> None:
        """Note that a worker died at a batch; a task that did it often enough has failed.

        Once is not enough even for a single task: it may have been somebody with a `kill`.
        """
        is_sure = death.is_proven or batch.own_deaths >= max(1, self.rules.task_retries)
        if len(batch.indices) == 1 and is_sure:
            peak = death.peak_bytes
            used = "" if peak is None else f"; it had used {Memory(peak)} at its peak"
            self._take(_lost(batch, death.reason + used))
        else:
            self.agenda.has_died(batch, alone=alone, halve=death.is_proven)

    def _was_late(self, batch: Batch) -> None:
        """Note that a worker was ended for its time: once is enough to know that it will be again.

        A batch is halved at once.
        """
        if len(batch.indices) == 1 and batch.deaths >= self.rules.task_retries:
            limit = over_limit(self.rules.task_timeout or 0)
            self._take(_lost(batch, f"{limit}, and had to be killed with its worker"))
        else:
            self.agenda.has_died(batch, halve=True)

    def _recover(self, lost: list[Batch]) -> None:
        """Find whose fault the death of an engine was, with a fresh one."""
        self.flying.clear()
        self.deadlines.clear()
        reason = self._renew()
        for batch in reversed(lost):
            self._has_died(batch, WorkerDied(reason), alone=True)

    def _renew(self) -> str:
        """Replace an engine that has died; return how it died."""
        reason = self.engine.death()
        self.renewals += 1
        if self.renewals > MOST_RENEWALS:
            raise LaunchError(f"workers die again and again, and no task ends: {reason}")
        self.engine = self.make_engine()
        return reason


def _rest(indices: Any, done: NDArray[np.int64]) -> Any:
    """Return the indices without those that are done, mostly the first ones."""
    if indices[len(done) - 1] == done[-1]:
        return indices[len(done) :]
    return Scattered(np.setdiff1d(np.array(indices, np.int64), done))


def _lost(batch: Batch, reason: str) -> Block:
    """Return the result of a task that takes its worker down."""
    unknown = np.full(1, np.nan)
    return make_block(batch.indices, [None], {0: reason}, unknown, unknown, 0, batch.attempt)
