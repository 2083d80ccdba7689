"""One task after another, in the driver itself: for debugging, and for a single core."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from hpckit.run.engines import Engine, Workplace, own_log
from hpckit.run.logs import capture_task_output

P = ParamSpec("P")
T = TypeVar("T")


class SerialEngine(Engine):
    """Runs each call inside `submit`."""

    ends_tasks = False

    @classmethod
    def fitting_workers(cls, asked: int | None, cpus: int) -> int:
        """Return that there is one."""
        return 1

    def __init__(self, place: Workplace) -> None:
        self.workers = 1
        capture_task_output(own_log(place.log))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` now; the future is done when it is returned."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def kill(self) -> None:
        """Do nothing: no other process or thread works."""
