"""Batches whose tasks are worked many at once on an event loop: what each is at, what came of it.

Tasks are taken one by one, in order, and end in any order.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hpckit.errors import HpckitError
from hpckit.run.batch import FarmSpec, Outcome, lightened, make_caller, packed
from hpckit.run.calling import Point, Row
from hpckit.run.timelimit import TaskTimeout
from hpckit.store.arrays import Spill
from hpckit.store.rundir import RunDir

Running: TypeAlias = tuple[NDArray[np.int64], Future[Outcome]] | None


class Ended(NamedTuple):
    """What came of a task.

    Attributes
    ----------
    begin, end
        By `time.perf_counter`.
    """

    task: int
    row: Row
    error: str | None
    begin: float
    end: float


class Function:
    """A farm's function, to be awaited whatever it is: a plain one works in a thread.

    Attributes
    ----------
    work
        Calls it for a task's index and its parameters.
    """

    def __init__(self, spec: FarmSpec) -> None:
        self.caller = make_caller(spec)
        self.spill = Spill(RunDir(spec.run).segments)
        self._seconds = spec.task_timeout
        self.work: Callable[[int, Point], Coroutine[Any, Any, Row]]
        if not self.caller.is_async:
            self.work = self._in_thread
        else:
            self.work = self._awaited if self._seconds is None else self._limited

    async def _awaited(self, index: int, point: Point) -> Row:
        returned = await self.caller.call(index, point)
        return returned if type(returned) in self.caller.plain else self.caller.row(returned)

    async def _limited(self, index: int, point: Point) -> Row:
        assert self._seconds is not None
        try:
            async with asyncio.timeout(self._seconds) as limit:
                return await self._awaited(index, point)
        except TimeoutError:
            if limit.expired():
                raise TaskTimeout(self._seconds) from None
            raise

    async def _in_thread(self, index: int, point: Point) -> Row:
        run = contextvars.copy_context().run
        loop = asyncio.get_running_loop()
        row, raised = await loop.run_in_executor(None, run, self._called, index, point)
        if raised is not None:
            raise raised
        return row

    def _called(self, index: int, point: Point) -> tuple[Row, BaseException | None]:
        """Call it; a future cannot pass on each exception, such as `StopIteration`."""
        try:
            return self.caller.row(self.caller.call(index, point)), None
        except BaseException as raised:
            return None, raised


@dataclass(eq=False)
class Call:
    """A batch that was handed in, or those of its tasks that go on without it.

    Attributes
    ----------
    left
        The tasks that are not begun.
    running
        By a task's index, the lane that works it.
    is_due
        Whether its time is up, and the next task that ends is to be given back.
    """

    function: Function
    attempt: int
    left: Iterator[tuple[int, Point]]
    unbegun: int
    future: Future[Outcome] = field(default_factory=Future)
    running: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    trouble: HpckitError | None = None
    timer: asyncio.TimerHandle | None = None
    is_due: bool = False

    @classmethod
    def of(cls, function: Function, indices: Sequence[int], attempt: int) -> Call:
        """Prepare the call of a function for some tasks."""
        points = function.caller.points(indices)
        return cls(function, attempt, zip(indices, points, strict=True), len(indices))

    def rest(self) -> Future[Outcome] | None:
        """Let go what has not begun; return the future of what runs, which this call is now."""
        self.unbegun, self.is_due = 0, False
        self.future, self.ended = Future(), []
        return self.future if self.running else None


def packer(call: Call) -> Callable[[], Outcome]:
    """Return a function that packs what a call has come to so far, in any thread."""
    function, ended, attempt, trouble = call.function, call.ended, call.attempt, call.trouble

    def pack() -> Outcome:
        if not ended:
            return Outcome(None, trouble)
        ended.sort(key=itemgetter(0))
        indices, rows, texts, begins, ends = zip(*ended, strict=True)
        errors = {place: text for place, text in enumerate(texts) if text is not None}
        seconds = np.subtract(ends, begins)
        merge = function.caller.merge
        outcome = packed(indices, list(rows), errors, begins, seconds, attempt, merge)
        whole = replace(outcome, trouble=trouble or outcome.trouble)
        return lightened(whole, function.spill)

    return pack


def resolve(future: Future[Outcome], pack: Callable[[], Outcome], running: Running) -> None:
    """Give back what a `packer` has packed, and what goes on."""
    try:
        future.set_result(replace(pack(), running=running))
    except InvalidStateError:
        pass  # It ended otherwise in the meantime.
    except BaseException as error:
        future.set_exception(error)
