"""Coroutines on one event loop in the driver, for tasks that wait: the engine asyncio.

A batch gives back what is finished after a second, so that it can be sealed, and leaves the
rest running. The driver hands these tasks in again, and they are found here, running on.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hpckit.errors import HpckitError, LaunchError, StoreError
from hpckit.run.batch import BATCH_SECONDS, FarmSpec, Outcome, lightened, make_caller, packed
from hpckit.run.calling import Caller, Row, told
from hpckit.run.context import Current, current
from hpckit.run.engines import Engine, Workplace, own_log
from hpckit.run.logs import capture_task_output, end_task
from hpckit.run.timelimit import TaskTimeout
from hpckit.store.arrays import Spill
from hpckit.store.rundir import RunDir

DEFAULT_TASKS = 100
GRACE_SECONDS = 2.0
"""What cancelled tasks get for their `finally` blocks."""


@dataclass(eq=False)
class _Task:
    """A task from its first submission to the batch that takes its result."""

    index: int
    point: tuple[Any, ...]
    batch: _Batch | None
    row: Row = None
    error: str | None = None
    begun: float = 0.0
    ended: float | None = None


@dataclass(eq=False)
class _Batch:
    """Tasks whose results go back together."""

    attempt: int
    tasks: list[_Task] = field(default_factory=list)
    future: Future[Outcome] = field(default_factory=Future)
    left: int = 0
    is_due: bool = False


class AsyncioEngine(Engine):
    """An event loop in a thread; `width` of a batch's tasks are worked at once."""

    takes_async = True
    ends_tasks = True

    def __init__(self, place: Workplace) -> None:
        self.workers = 1
        self.width = place.workers
        capture_task_output(own_log(place.log))
        self._works: _Works | None = None
        self._trouble: HpckitError | None = None
        self._queue: deque[_Task] = deque()
        self._tasks: dict[int, _Task] = {}
        self._lanes: set[asyncio.Task[None]] = set()
        self._is_ending = False
        self._threads = ThreadPoolExecutor(place.workers, "hpckit-sync")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hpckit-loop", daemon=True)
        self._thread.start()

    @classmethod
    def fitting_workers(cls, asked: int | None, cpus: int) -> int:
        """Return how many tasks to work at once: more than there are cores, since they wait."""
        return asked or DEFAULT_TASKS

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand in a batch: `run_batch` with its arguments, and nothing else."""
        if getattr(fn, "__name__", "") != "run_batch":
            raise TypeError("the engine asyncio works batches of tasks alone")
        if self._is_ending:
            raise BrokenExecutor("the event loop has been ended")
        spec, indices, attempt = args
        batch = _Batch(attempt)
        batch.future.set_running_or_notify_cancel()
        self._loop.call_soon_threadsafe(self._take, batch, spec, indices)
        return batch.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the loop."""
        self.kill()

    def close(self) -> None:
        """End the loop, whose tasks have ended."""
        self.kill()

    def kill(self) -> None:
        """Cancel what runs; its ``finally`` blocks get some time."""
        self._is_ending = True
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(GRACE_SECONDS + 1)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        with suppress(RuntimeError):
            self._loop.close()

    def _cancel(self) -> None:
        for lane in self._lanes:
            lane.cancel()
        ending = self._loop.create_task(self._stop())
        ending.add_done_callback(lambda _: self._loop.stop())

    async def _stop(self) -> None:
        if self._lanes:
            await asyncio.wait(self._lanes, timeout=GRACE_SECONDS)

    def _take(self, batch: _Batch, spec: FarmSpec, indices: Sequence[int]) -> None:
        """Begin a batch's tasks, or find those that run already."""
        try:
            works = self._works = self._works or _Works.of(spec)
        except Exception as error:
            told = str(error) if isinstance(error, HpckitError) else repr(error)
            trouble = LaunchError(f"the job could not be loaded: {told}")
            batch.future.set_result(Outcome(None, trouble))
            return
        for index, point in zip(indices, works.caller.points(indices), strict=True):
            task = self._tasks.get(index)
            if task is None:
                task = self._tasks[index] = _Task(index, point, batch)
                self._queue.append(task)
            task.batch = batch
            batch.tasks.append(task)
            batch.left += task.ended is None
        if not batch.left:
            self._give_back(batch)
            return
        self._loop.call_later(BATCH_SECONDS, self._is_due, batch)
        for _ in range(min(self.width - len(self._lanes), len(self._queue))):
            lane = self._loop.create_task(self._work(works))
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)

    async def _work(self, works: _Works) -> None:
        """Work off tasks one after another, as one of `width`."""
        now = Current()
        current.set(now)
        while self._queue:
            task = self._queue.popleft()
            now.index = task.index
            task.begun = time.perf_counter()
            try:
                returned = await works.call(task, self._threads)
                plain = type(returned) in works.caller.plain
                task.row = returned if plain else works.caller.row(returned)
            except asyncio.CancelledError as error:
                if self._is_ending:
                    raise
                task.error = told(error)
            except (StoreError, LaunchError) as error:
                self._trouble = error
            except BaseException as error:
                task.error = told(error)
            if now.open_lines:
                end_task(now)
            self._has_ended(task)

    def _has_ended(self, task: _Task) -> None:
        task.ended = time.perf_counter()
        batch = task.batch
        if batch is not None:
            batch.left -= 1
            if batch.is_due or not batch.left or self._trouble is not None:
                self._give_back(batch)

    def _is_due(self, batch: _Batch) -> None:
        """Give back what is finished of a batch; if that is nothing, as soon as something is."""
        batch.is_due = True
        if not batch.future.done() and batch.left < len(batch.tasks):
            self._give_back(batch)

    def _give_back(self, batch: _Batch) -> None:
        assert self._works is not None
        done = []
        for task in batch.tasks:
            task.batch = None
            if task.ended is not None:
                del self._tasks[task.index]
                done.append(task)
        done.sort(key=lambda task: task.index)
        try:
            batch.future.set_result(self._works.packed(done, batch.attempt, self._trouble))
        except Exception as error:
            batch.future.set_exception(error)


@dataclass(frozen=True)
class _Works:
    """What is worked on: one farm."""

    caller: Caller
    spill: Spill
    seconds: float | None
    is_async: bool

    @classmethod
    def of(cls, spec: FarmSpec) -> _Works:
        caller = make_caller(spec)
        folder = RunDir(spec.run).segments
        return cls(caller, Spill(folder), spec.task_timeout, caller.is_async)

    async def call(self, task: _Task, threads: ThreadPoolExecutor) -> Any:
        """Call the function for a task."""
        if not self.is_async:
            loop, context = asyncio.get_running_loop(), contextvars.copy_context()
            return await loop.run_in_executor(
                threads, context.run, self.caller.call, task.index, task.point
            )
        if self.seconds is None:
            return await self.caller.call(task.index, task.point)
        limit = asyncio.timeout(self.seconds)
        try:
            async with limit:
                return await self.caller.call(task.index, task.point)
        except TimeoutError:
            if limit.expired():
                raise TaskTimeout(self.seconds) from None
            raise

    def packed(self, done: list[_Task], attempt: int, trouble: HpckitError | None) -> Outcome:
        """Pack what finished tasks gave."""
        errors = {p: task.error for p, task in enumerate(done) if task.error is not None}
        if trouble is not None:
            return Outcome(None, trouble)
        outcome = packed(
            [task.index for task in done],
            [task.row for task in done],
            errors,
            [task.begun for task in done],
            [(task.ended or task.begun) - task.begun for task in done],
            attempt,
            self.caller.merge,
        )
        return lightened(outcome, self.spill)
