"""The scheduler's notice that a job's time is nearly up."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from hpckit.early import came_early
from hpckit.errors import UsageError
from hpckit.variables import WARNING


class TimeIsUp(BaseException):
    """The program has saved its work and must end: no exception that its own code should catch."""


class Notice:
    """Whether the notice has come.

    Attributes
    ----------
    signum
        The signal that it is; None where nobody gives notice.
    seconds
        From the notice to the end.
    """

    def __init__(self, signum: int | None, seconds: float) -> None:
        self.signum = signum
        self.seconds = seconds
        self.has_come = False

    @classmethod
    def from_environment(cls) -> Notice:
        """Return what the batch script has told.

        Raises
        ------
        UsageError
            It makes no sense.
        """
        text = os.environ.get(WARNING)
        if not text:
            return cls(None, 0.0)
        match = re.fullmatch(r"(?P<name>[A-Z0-9]+)@(?P<seconds>\d+)", text)
        signum = getattr(signal, f"SIG{match['name']}", None) if match else None
        if match is None or signum is None:
            raise UsageError(f"${WARNING}={text!r}: must be a signal and seconds, as in USR1@120")
        return cls(int(signum), float(match["seconds"]))

    @contextmanager
    def heeded(self, act: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Note in the block that the signal comes, and call `act` then; for the main thread."""
        if self.signum is None:
            yield
            return

        def note(signum: int, frame: FrameType | None) -> None:
            self.has_come = True
            act()

        before = signal.signal(self.signum, note)
        if came_early(self.signum):
            note(self.signum, None)
        try:
            yield
        finally:
            signal.signal(self.signum, before)
