"""Processes that end when they should: with their parent, or at a signal; and how they ended."""

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
from types import FrameType
from typing import NoReturn

_PR_SET_PDEATHSIG = 1

_interrupted = threading.Event()


def ending(status: int) -> str:
    """Say how a process ended.

    Parameters
    ----------
    status
        Its exit status, or minus the number of the signal that killed it.
    """
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        # Those between SIGRTMIN and SIGRTMAX have no names.
        name = f"signal {-status}"
    hint = ", often for want of memory" if -status == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def has_not_started(said: str) -> bool:
    """Tell whether a launcher of ranks says that it has started none, and might if asked again.

    Open MPI 5 does so once in a while on a busy machine.
    """
    return "PMIx server's listener thread failed to start" in said


def die_with_pipe(descriptor: int) -> None:
    """Have this process's group killed when a pipe's other end is closed, even by ``kill -9``.

    The kernel does it on Linux (fcntl(2), F_SETSIG), whatever the process is at; elsewhere a
    thread waits for it.
    """
    if sys.platform == "linux":
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
        if select.select([descriptor], [], [], 0)[0]:
            _end_group()
    else:
        threading.Thread(target=_watch, args=(descriptor,), daemon=True).start()


def leash(signum: int = signal.SIGKILL) -> Callable[[], None]:
    """Return a function for `subprocess`'s `preexec_fn` that ties the child to this process."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def tie() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(signum))

    return tie


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, on Linux."""
    parent = os.getppid()
    leash()()
    if os.getppid() != parent:
        os._exit(1)


@contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Hold Ctrl-C and SIGTERM back until the block has ended; yield those that have come.

    What a block writes and then notes stays in step that way, and no exception breaks into the
    library code that it calls. Signals come to the main thread; in others this does nothing.
    One that is ignored stays so.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {s: signal.getsignal(s) for s in signals if signal.getsignal(s) != signal.SIG_IGN}
    for signum in before:
        signal.signal(signum, lambda number, frame: came.append(number))
    try:
        yield came
    finally:
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt in the block, and `was_interrupted` tell it.

    For the main thread alone. A signal that is ignored stays so: a shell's background jobs are
    deaf to Ctrl-C.
    """
    _interrupted.clear()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {s: signal.getsignal(s) for s in signals if signal.getsignal(s) != signal.SIG_IGN}
    for signum in before:
        signal.signal(signum, _interrupt)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def was_interrupted() -> bool:
    """Tell whether a signal came to `interruptible`: code may raise KeyboardInterrupt by itself."""
    return _interrupted.is_set()


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    _interrupted.set()
    raise KeyboardInterrupt


def _watch(descriptor: int) -> None:
    select.select([descriptor], [], [])
    _end_group()


def _end_group() -> NoReturn:
    os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
