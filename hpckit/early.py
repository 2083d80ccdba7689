"""Signals that come before anybody can heed them; imports nothing heavy, since it comes first."""

from __future__ import annotations

import signal

_came: set[int] = set()


def note_early(signum: int) -> None:
    """Note a signal that comes before anybody can heed it, instead of dying of it."""
    signal.signal(signum, lambda number, frame: _came.add(number))


def came_early(signum: int) -> bool:
    """Tell whether a signal came before anybody could heed it; once."""
    came = signum in _came
    _came.discard(signum)
    return came
