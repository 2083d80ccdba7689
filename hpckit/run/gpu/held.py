"""The card that a thread holds, from its first task that wants one to the thread's end."""

from __future__ import annotations

import atexit
from threading import current_thread, local, main_thread
from typing import Any

from hpckit.run.gpu.card import Gpu
from hpckit.run.gpu.wish import Wish


class _Hold:
    """A thread's hold on its card, which ends with the thread: CUDA insists on that."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu

    def __del__(self) -> None:
        self.gpu.close()


_here = local()
"""Each thread that works on tasks has a card of its own."""


def card_here(wish: Wish, preferred: int = 0) -> Gpu:
    """Return the card of this thread, bound at the first call.

    Raises
    ------
    LaunchError
        None can be had.
    """
    gpu = _held()
    if gpu is not None and gpu.wish != wish:
        # A worker that goes from one run to the next.
        gpu.tell()
        del _here.hold
        gpu = None
    if gpu is None:
        gpu = Gpu(wish, preferred)
        _here.hold = _Hold(gpu)
        if current_thread() is main_thread():
            atexit.register(gpu.close)
    return gpu


def tell_here() -> None:
    """Leave word of what this thread's card did, if it has one."""
    if (gpu := _held()) is not None:
        gpu.tell()


def to_host_here(array: Any) -> Any:
    """Return an array of this thread's card as one of the host."""
    gpu = _held()
    return array.get() if gpu is None else gpu.to_host(array)


def is_lost_here() -> bool:
    """Tell whether this thread has a card that is of no use any more."""
    gpu = _held()
    return gpu is not None and gpu.is_lost()


def _held() -> Gpu | None:
    hold: _Hold | None = getattr(_here, "hold", None)
    return None if hold is None else hold.gpu
