"""Processes that end when they should: with their parent, or at once."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1


def die_with_pipe(descriptor: int) -> None:
    """Have this process killed when the other end of a pipe is closed, even by ``kill -9``.

    The kernel does it on Linux (fcntl(2), F_SETSIG), whatever the process is at; elsewhere a
    thread waits for it.
    """
    if sys.platform == "linux":
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
        if select.select([descriptor], [], [], 0)[0]:
            os._exit(1)
    else:
        threading.Thread(target=_watch, args=(descriptor,), daemon=True).start()


def leash(signum: int = signal.SIGKILL) -> Callable[[], None]:
    """Return a function for `subprocess`'s `preexec_fn` that ties the child to this process."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def tie() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(signum))

    return tie


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block has ended.

    What a block writes and then notes stays in step that way. Signals come to the main thread;
    in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {s: signal.signal(s, lambda number, frame: came.append(number)) for s in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


def _watch(descriptor: int) -> None:
    select.select([descriptor], [], [])
    os._exit(1)
