"""Processes on this machine, one task at a time in each.

The standard library's pool breaks as a whole when a worker dies, with the hours of all others.
Here each worker has a socket of its own, so that its death is that of its calls alone.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from hpckit.errors import LaunchError
from hpckit.processes import ending
from hpckit.run.engines import Engine, WorkerDied, Workplace
from hpckit.run.engines.calls import settle
from hpckit.run.engines.frames import (
    CALL,
    GIVEN_BACK,
    RECALL,
    RESULT,
    Message,
    open_both_ways,
    receive_async,
)
from hpckit.run.engines.worker import serve

P = ParamSpec("P")
T = TypeVar("T")

GRACE_SECONDS = 2.0
"""What workers get to end by themselves before they are killed."""

STARTS = 3
"""Tries to have a process forked."""

DEATHS_AT_START = 5
"""Workers in a row that end before their first call: then none can be had."""

LAST_WORDS_SECONDS = 0.5
"""In which what a worker sent before it ended is read."""

MEMORY_SECONDS = 0.5
"""Between two looks at the peak memory of the workers."""

AT_HAND = 2
"""Calls at a worker: one that it works on, one that it begins at once after that."""

SOCKET_FOLDER = "/tmp"
LONGEST_FOLDER = 75
"""Bytes: a socket's path has 107 at most (unix(7)), and multiprocessing appends 32."""


@dataclass(eq=False)
class _Call:
    number: int
    payload: bytes
    future: Future[Any] = field(default_factory=Future)


@dataclass(eq=False)
class _Worker:
    """A process, and the calls that it has."""

    process: ForkServerProcess
    channel: socket.socket
    calls: dict[int, _Call] = field(default_factory=dict)
    writer: asyncio.StreamWriter | None = None
    peak_bytes: int | None = None
    answers: int = 0
    is_leaving: bool = False
    reason: str | None = None
    recalled: int | None = None

    @property
    def can_take(self) -> bool:
        return self.writer is not None and not self.is_leaving

    def look_at_memory(self) -> None:
        with suppress(OSError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            _, found, rest = status.partition("VmHWM:")
            if found:
                self.peak_bytes = int(rest.split()[0]) << 10

    def send(self, message: Message) -> None:
        if self.writer is not None:
            self.writer.writelines(message.pieces())

    def kill(self) -> None:
        """Kill it, and what its tasks have started."""
        pid = self.process.pid
        if pid is not None and self.process.exitcode is None:
            # It may not have made a group yet.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)


class ProcessesEngine(Engine):
    """A pool of worker processes; all that follows `submit` happens in a thread of its own."""

    def __init__(self, place: Workplace) -> None:
        super().__init__(place)
        _place_sockets()
        self._log = place.log
        self._context = ForkServerContext()
        self._context.set_forkserver_preload(["hpckit.run.engines.worker", "hpckit.run.batch"])
        self._queue: deque[_Call] = deque()
        self._pool: list[_Worker] = []
        self._numbers = count()
        self._deaths = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hpckit-pool", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand in a call, as `concurrent.futures` has it."""
        if self._is_closing:
            raise BrokenExecutor("the workers have been ended")
        call = _Call(next(self._numbers), pickle.dumps((fn, args, kwargs), pickle.HIGHEST_PROTOCOL))
        call.future.set_running_or_notify_cancel()
        self._loop.call_soon_threadsafe(self._take, call)
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers once they have worked off their calls."""
        self._end(gently=not cancel_futures, seconds=None if wait else 0.0)

    def close(self) -> None:
        """End the workers; one that a task's thread keeps alive is killed."""
        self._end(gently=True, seconds=GRACE_SECONDS)
        _reap_server()

    def kill(self) -> None:
        """Kill all workers, and what their tasks have started."""
        self._end(gently=False, seconds=GRACE_SECONDS)

    def abandon(self, call: Future[Any]) -> None:
        """Kill the worker that is at a call; one that waits behind another is not to blame."""
        self._loop.call_soon_threadsafe(self._abandon, call)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(self._has_failed)
        self._loop.call_soon(self._look_at_memory)
        self._loop.run_forever()
        self._loop.close()

    def _take(self, call: _Call) -> None:
        self._queue.append(call)
        self._dispatch()

    def _dispatch(self) -> None:
        """Give out calls, to idle workers first; start workers while there are too few."""
        for level in range(AT_HAND):
            for worker in self._pool:
                if self._queue and len(worker.calls) == level and worker.can_take:
                    self._give(worker, self._queue.popleft())
            if level == 0 and not self._is_closing:
                starting = sum(worker.writer is None for worker in self._pool)
                room = self.workers - len(self._pool)
                for _ in range(min(len(self._queue) - starting, room)):
                    self._start()
                if starting or (self._queue and room > 0):
                    return

    def _give(self, worker: _Worker, call: _Call) -> None:
        worker.calls[call.number] = call
        worker.send(Message(CALL, call.number, call.payload))

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            process = self._forked(theirs)
        except Exception as error:
            ours.close()
            self._give_up(f"no worker process can be started: {error}")
            return
        finally:
            theirs.close()
        worker = _Worker(process, ours)
        self._pool.append(worker)
        task = self._loop.create_task(self._attend(worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forked(self, channel: socket.socket) -> ForkServerProcess:
        """Start a process; the fork server may be killed at that moment, and is then replaced."""
        for left in reversed(range(STARTS)):
            process = self._context.Process(target=serve, args=(channel, self._log), daemon=True)
            try:
                process.start()
                break
            except (EOFError, ConnectionError):
                if not left:
                    raise
        return process

    async def _attend(self, worker: _Worker) -> None:
        """Take what a worker answers, until it has ended."""
        reader, incoming, worker.writer = await open_both_ways(worker.channel)
        self._loop.add_reader(worker.process.sentinel, self._hang_up, worker, incoming)
        self._dispatch()
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                message = await receive_async(reader)
                call = worker.calls.pop(message.number)
                if message.kind == GIVEN_BACK:
                    self._queue.appendleft(call)
                    self._dispatch()
                else:
                    worker.is_leaving = message.kind != RESULT
                    self._answered(worker, call, message.payload)
        self._loop.remove_reader(worker.process.sentinel)
        incoming.close()
        worker.writer.close()
        self._has_ended(worker)

    def _hang_up(self, worker: _Worker, incoming: asyncio.StreamWriter) -> None:
        """End the channel of a process that has ended, if a child of it holds the other end."""
        self._loop.remove_reader(worker.process.sentinel)
        self._loop.call_later(LAST_WORDS_SECONDS, incoming.transport.abort)

    def _answered(self, worker: _Worker, call: _Call, payload: bytes) -> None:
        worker.answers += 1
        self._deaths = 0
        self._dispatch()
        if not worker.calls:
            self._recall()
        settle(call.future, payload, good=not worker.is_leaving)

    def _recall(self) -> None:
        """Ask for a call that waits behind another, now that a worker is idle."""
        for worker in self._pool:
            last = max(worker.calls, default=None)
            if len(worker.calls) == AT_HAND and last is not None and last != worker.recalled:
                worker.recalled = last
                worker.send(Message(RECALL, last))
                return

    def _has_ended(self, worker: _Worker) -> None:
        """Clear up after a worker: the call that it was at has died with it."""
        worker.process.join(GRACE_SECONDS)
        code = worker.process.exitcode
        worker.kill()
        self._pool.remove(worker)
        reason = worker.reason or f"the worker process {'died' if code is None else ending(code)}"
        calls = list(worker.calls.values())
        if calls and not worker.is_leaving:
            calls.pop(0).future.set_exception(WorkerDied(reason, worker.peak_bytes))
        elif not self._is_closing and not worker.answers:
            self._deaths += 1
            if self._deaths >= DEATHS_AT_START:
                self._give_up(f"worker processes end as they start: {reason}")
        self._queue.extendleft(reversed(calls))
        self._dispatch()

    def _give_up(self, reason: str) -> None:
        calls = [call for worker in self._pool for call in worker.calls.values()] + [*self._queue]
        self._queue.clear()
        for call in calls:
            if not call.future.done():
                call.future.set_exception(LaunchError(reason))

    def _has_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Let no call wait for ever after a fault of this engine's own."""
        loop.default_exception_handler(context)
        self._give_up(f"the pool of processes failed: {context.get('exception')!r}")

    def _abandon(self, future: Future[Any]) -> None:
        for worker in self._pool:
            first = next(iter(worker.calls.values()), None)
            if first is not None and first.future is future:
                worker.reason = "the worker process was killed, since its task took too long"
                worker.kill()

    def _look_at_memory(self) -> None:
        for worker in self._pool:
            worker.look_at_memory()
        self._loop.call_later(MEMORY_SECONDS, self._look_at_memory)

    def _end(self, *, gently: bool, seconds: float | None) -> None:
        self._is_closing = True
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._finish(gently, seconds), self._loop)
            self._thread.join(seconds if seconds is None else seconds + GRACE_SECONDS)

    async def _finish(self, gently: bool, seconds: float | None) -> None:
        if gently and seconds != 0:
            while any(worker.calls for worker in self._pool) or self._queue:
                await asyncio.sleep(0.01)
            for worker in self._pool:
                if worker.writer is not None:
                    worker.writer.write_eof()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=seconds)
        for worker in list(self._pool):
            worker.kill()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_SECONDS)
        self._loop.stop()


def _reap_server() -> None:
    """End the fork server and wait for it: its workers' CPU time then counts as this process's.

    Schedulers, time(1) and the like add up only those that were waited for; the library itself
    leaves the server behind.
    """
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def _place_sockets() -> None:
    """Have multiprocessing make its folder for sockets, mode 0700, where paths are short."""
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
        tempfile.tempdir = SOCKET_FOLDER
    try:
        get_temp_dir()
    finally:
        tempfile.tempdir = before
