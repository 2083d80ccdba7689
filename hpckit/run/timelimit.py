"""The time that a task may take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

AGAIN_SECONDS = 1.0
"""After which a task that caught the first exception gets another."""


class TaskTimeout(BaseException):
    """A task took too long; not an Exception, which tasks may catch and go on."""

    def __init__(self, seconds: float) -> None:
        super().__init__(over_limit(seconds))


def over_limit(seconds: float) -> str:
    """Say that a task took longer than it may."""
    return f"the task took longer than its time limit, {seconds:g} s"


def limited(function: Callable[P, T], seconds: float) -> Callable[P, T]:
    """Return `function` with a time limit, after which it meets `TaskTimeout`.

    In the main thread, where signals arrive, and at a Python statement or a system call. What
    is stuck elsewhere, in a loop in C, say, is for whoever can end the process.
    """
    if threading.current_thread() is not threading.main_thread():
        return function
    is_at_it = False

    def alarm(signum: int, frame: FrameType | None) -> None:
        if is_at_it:
            raise TaskTimeout(seconds)

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal is_at_it
        # Each time: a task before may have set a handler of its own.
        signal.signal(signal.SIGALRM, alarm)
        try:
            is_at_it = True
            signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
            try:
                return function(*args, **kwargs)
            finally:
                is_at_it = False
        finally:
            # Again, since an alarm may have come just before the line above.
            is_at_it = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    return call
