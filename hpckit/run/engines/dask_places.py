"""Dask workers as the driver sees them, and the calls that it has given to them."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpckit.run.engines.dask_worker import work

DEPTH = 2
"""Calls at a worker: one that it works on, one that waits for it."""


@dataclass(eq=False)
class Call:
    """A call in flight.

    Attributes
    ----------
    withdrawn
        Done once it has been taken back from the worker it waited for.
    is_left
        Whether nobody waits for its answer any more.
    is_suspect
        Whether a worker may die of it.
    is_ended
        Whether its worker was told to end for its sake.
    losses
        Workers that were lost at it so far, for reasons that nobody knows.
    """

    pickled: bytes
    ticket: str = field(default_factory=lambda: f"hpckit-{uuid.uuid4()}")
    withdrawn: asyncio.Future[None] = field(default_factory=lambda: loop_future())
    is_asked_back: bool = False
    is_left: bool = False
    is_suspect: bool = False
    is_ended: bool = False
    losses: int = 0


@dataclass
class Errand:
    """Whose unpickling is the work: the scheduler, which unpickles calls, needs no hpckit."""

    ticket: str
    log: Path | None
    pickled: bytes

    def __reduce__(self) -> Any:
        """Pickle it as a call of `work`."""
        return work, (self.ticket, self.log, self.pickled)


@dataclass(eq=False)
class Place:
    """A worker and the calls at it, in the order in which it works them off.

    Attributes
    ----------
    lost
        Done once the worker is gone: the call whose fault it was, if anyone's.
    is_leaving
        Whether it is given no more calls.
    """

    address: str
    calls: list[Call] = field(default_factory=list)
    lost: asyncio.Future[Call | None] = field(default_factory=lambda: loop_future())
    is_leaving: bool = False

    def takes(self, call: Call) -> bool:
        """Tell whether it can have one more call."""
        if self.is_leaving:
            return False
        if any(other.is_suspect for other in (call, *self.calls)):
            return not self.calls
        return len(self.calls) < DEPTH


def loop_future() -> asyncio.Future[Any]:
    """Return a future of the event loop that runs."""
    return asyncio.get_running_loop().create_future()
