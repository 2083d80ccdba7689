"""Many tasks at a time on one event loop, in a thread of the driver: for those that await.

Lanes, one a task at a time, take tasks from the calls in order. A call is given back once all
its tasks have ended; after `BATCH_SECONDS`, or when a lane stands idle, as far as it is. What
then still runs goes on, under a future of its own, so that a long task holds nothing back.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np

from hpckit.errors import LaunchError, StoreError
from hpckit.run.batch import BATCH_SECONDS, FarmSpec, Outcome, not_loaded, run_batch
from hpckit.run.calling import Point, told
from hpckit.run.context import Current
from hpckit.run.engines import AHEAD, Engine, WorkerDied, Workplace, own_log
from hpckit.run.gpu.between import tell_of_gpu
from hpckit.run.lanes import Call, Ended, Function, packer, resolve
from hpckit.run.logs import attend, capture_task_output, end_task
from hpckit.spec.job import AWAITED, Job

GRACE_SECONDS = 3.0
"""What cancelled tasks get for their `finally` blocks."""

ANSWER_SECONDS = 2.0
"""A loop that does not answer within them is held up by a task that does not await."""

HELD_UP = "a task did not end in time, and held up the event loop: no other task went on"
IGNORED = "the task did not end in time: it went on although it was cancelled"


class AsyncioEngine(Engine):
    """Works batches on an event loop; a function that is no ``async def``, in threads."""

    takes_async = True

    @classmethod
    def fitting_workers(cls, asked: int | None, cpus: int) -> int:
        """Return how many tasks there are to be at a time; they need no core while they wait."""
        return asked or AWAITED

    @classmethod
    def can_end_tasks(cls, job: Job) -> bool:
        """Tell whether a task can be cancelled: a thread cannot."""
        return job.is_async

    def __init__(self, place: Workplace) -> None:
        self.workers, self.width = 1, place.workers
        self._log = own_log(place.log)
        capture_task_output(self._log)
        self._functions: dict[FarmSpec, Function] = {}
        # The driver's thread alone counts those handed in, the loop's those that have ended.
        self._handed_in = self._ended = 0
        self._calls: dict[Future[Outcome], Call] = {}
        self._queue: deque[Call] = deque()
        self._lanes: set[asyncio.Task[None]] = set()
        self._is_idle = self._is_ending = False
        self._reason = "the event loop has been ended"
        self._packer = ThreadPoolExecutor(1, thread_name_prefix="hpckit-packer")
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._log_trouble)
        self._loop.set_default_executor(ThreadPoolExecutor(self.width, "hpckit"))
        self._thread = threading.Thread(target=self._run, name="hpckit-loop", daemon=True)
        self._thread.start()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand in a call of `run_batch`, the only function whose tasks can be told apart."""
        if fn is not run_batch or kwargs:
            raise TypeError(f"{fn!r}: the engine asyncio calls run_batch alone")
        spec, indices, attempt = args
        try:
            function = self._function(spec)
        except Exception as error:
            refused: Future[Outcome] = Future()
            refused.set_result(Outcome(None, not_loaded(error)))
            return refused
        call = Call.of(function, indices, attempt)
        future = call.future
        self._calls[future] = call
        if self._is_ending:
            raise BrokenExecutor(self._reason)
        self._handed_in += call.unbegun
        self._loop_calls(self._take, call)
        return future

    def has_room(self, flying: int) -> bool:
        """Tell whether fewer tasks wait than are worked at once; what runs on needs no room."""
        return self._handed_in - self._ended < AHEAD * self.width

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel what still runs, and end the loop."""
        self._loop_calls(self._begin_end)
        if wait:
            self._thread.join(ANSWER_SECONDS)
            if self._is_ending:
                self._thread.join(2 * GRACE_SECONDS)
            else:
                # A task holds the loop up: what had ended before is given back all the same.
                self._begin_end()
            self._packer.shutdown()

    def kill(self) -> None:
        """Give back what has ended, cancel what runs, and end the loop."""
        self.shutdown()

    def abandon(self, call: Future[Any]) -> None:
        """Let go of a call whose tasks do not end, or of the loop, if they hold it up."""
        answered = threading.Event()
        self._loop_calls(self._let_go, call, answered)
        if not answered.wait(ANSWER_SECONDS):
            self._break(HELD_UP)

    def death(self) -> str:
        """Say why the loop was let go of."""
        return self._reason

    def _function(self, spec: FarmSpec) -> Function:
        if spec not in self._functions:
            self._functions[spec] = Function(spec)
        return self._functions[spec]

    def _loop_calls(self, function: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # It has been closed.
            self._loop.call_soon_threadsafe(function, *args)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._is_ending:
            # A task that a job's task has started, and that exits, takes no other down.
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()
        with suppress(BaseException):
            self._loop.run_until_complete(self._wind_up())
        tell_of_gpu()
        self._loop.close()

    def _take(self, call: Call) -> None:
        self._queue.append(call)
        self._is_idle = False
        for _ in range(min(call.unbegun, self.width - len(self._lanes))):
            self._open_lane()

    def _open_lane(self) -> None:
        lane = self._loop.create_task(self._work())
        self._lanes.add(lane)
        lane.add_done_callback(self._has_closed)

    def _has_closed(self, lane: asyncio.Task[None]) -> None:
        """Let no call wait for ever after a fault of this engine's own."""
        self._lanes.discard(lane)
        if not lane.cancelled() and (error := lane.exception()) is not None:
            self._break(f"the event loop failed: {error!r}")

    async def _work(self) -> None:
        """Work tasks until there is none."""
        me = asyncio.current_task()
        assert me is not None
        now = Current()
        attend(now)
        while me in self._lanes and (taken := self._next()) is not None:
            call, index, point = taken
            now.index = index
            call.running[index] = me
            await self._do(call, index, point, me)
            if now.open_lines:
                end_task(now)
            # A job's task may have cancelled this one, which goes on.
            while me.cancelling():
                me.uncancel()
            # Others are to come to it even if no task ever awaits anything.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        # At once: what is handed in next counts the lanes that there are.
        self._lanes.discard(me)
        self._has_idled()

    def _next(self) -> tuple[Call, int, Point] | None:
        while self._queue and not self._is_ending:
            call = self._queue[0]
            if not call.unbegun:
                self._queue.popleft()
                continue
            if call.timer is None:
                self._time(call)
            call.unbegun -= 1
            return call, *next(call.left)
        return None

    async def _do(self, call: Call, index: int, point: Point, me: asyncio.Task[None]) -> None:
        """Work a task; an exception in it is its result, a cancellation of its own as well."""
        row = error = None
        begin = time.perf_counter()
        try:
            row = await call.function.work(index, point)
        except (StoreError, LaunchError) as raised:
            call.trouble = raised
        except BaseException as raised:
            if self._is_ending:
                return
            error = told(raised)
        if call.running.get(index) is not me:
            return
        del call.running[index]
        self._ended += 1
        if call.trouble is None:
            call.ended.append(Ended(index, row, error, begin, time.perf_counter()))
        if call.is_due or call.trouble is not None or not (call.running or call.unbegun):
            self._give_back(call)

    def _time(self, call: Call) -> None:
        call.timer = self._loop.call_later(BATCH_SECONDS, self._time_is_up, call)

    def _time_is_up(self, call: Call) -> None:
        if call.ended:
            self._give_back(call)
        else:
            call.is_due = True

    def _has_idled(self) -> None:
        """Have more handed in: the driver does so when something comes back to it."""
        if self._is_idle or self._is_ending:
            return
        self._is_idle = True
        for call in list(self._calls.values()):
            if call.ended:
                self._give_back(call)

    def _give_back(self, call: Call) -> None:
        """Give back what has ended and what has not begun; what runs goes on."""
        future, pack, running = call.future, packer(call), None
        if self._calls.pop(future, None) is None:
            return
        if call.timer is not None:
            call.timer.cancel()
        self._ended += call.unbegun
        rest = call.rest()
        if rest is not None and not self._is_ending:
            running = (np.array(sorted(call.running), np.int64), rest)
            self._calls[rest] = call
            self._time(call)
        self._packer.submit(resolve, future, pack, running)

    def _let_go(self, future: Future[Outcome], answered: threading.Event) -> None:
        answered.set()
        call = self._calls.pop(future, None)
        if call is None:
            return
        if call.timer is not None:
            call.timer.cancel()
        self._ended += call.unbegun + len(call.running)
        lost, call.running, call.unbegun = call.running, {}, 0
        for lane in lost.values():
            self._lanes.discard(lane)
            lane.cancel()
        for _ in range(min(len(lost), sum(call.unbegun for call in self._queue))):
            self._open_lane()
        future.set_exception(WorkerDied(IGNORED))

    def _break(self, reason: str) -> None:
        """Leave the loop alone, from any thread; it ends once it is not held up any more."""
        self._reason, self._is_ending = reason, True
        self._loop_calls(self._loop.stop)
        for future in list(self._calls):
            with suppress(InvalidStateError):
                future.set_exception(BrokenExecutor(reason))

    def _begin_end(self) -> None:
        if self._is_ending:
            return
        self._is_ending = True
        for call in list(self._calls.values()):
            self._give_back(call)
        self._loop.stop()

    async def _wind_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=GRACE_SECONDS)
        await asyncio.wait_for(self._loop.shutdown_asyncgens(), GRACE_SECONDS)

    def _log_trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what an event loop would print on the terminal."""
        error = context.get("exception")
        text = "".join(traceback.format_exception(error)) if error is not None else ""
        self._log.write(f"{context['message']}\n{text}".encode(errors="replace"))
