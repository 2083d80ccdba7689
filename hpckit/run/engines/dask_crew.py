"""The calls in flight, each at a worker of a dask scheduler that the driver has chosen.

The scheduler is told where each call goes and moves none by itself. So it is known which call
a worker had begun when it died: no call can take worker after worker down unseen.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client, KilledWorker

from hpckit.errors import LaunchError
from hpckit.run.engines import WorkerDied
from hpckit.run.engines.dask_places import DEPTH, Call, Errand, Place
from hpckit.run.engines.dask_worker import WITHDRAWN, withdraw

T = TypeVar("T")

MOST_LOSSES = 5
"""Workers that are lost at a call for no known reason, until it is taken to be the reason."""

LOST_SECONDS = 5.0
"""For which the scheduler may still know a worker that is lost."""


class Crew:
    """Places calls, and places those again that a lost worker had not begun.

    Everything here belongs to one event loop.

    Attributes
    ----------
    places
        By address, all workers that can be given calls.
    trouble
        Why nothing can be done any more.
    latest_reason
        How the latest worker ended that died at a call.

    Parameters
    ----------
    log
        Of workers that are not the driver's own.
    reason
        Finds out how the worker at an address ended; None if that was no fault of its call.
    """

    def __init__(
        self, client: Client, log: Path | None, reason: Callable[[str], Awaitable[str | None]]
    ) -> None:
        self.places: dict[str, Place] = {}
        self.trouble: Exception | None = None
        self.latest_reason: str | None = None
        self._client = client
        self._log = log
        self._reason = reason
        self._changed = asyncio.Event()
        self._waiting = 0
        self._lost_at: dict[str, float] = {}
        self._background: set[asyncio.Task[Any]] = set()

    async def work(self, pickled: bytes, *, is_suspect: bool = False) -> Any:
        """Have a call done by a worker; return what it returns.

        Parameters
        ----------
        is_suspect
            Whether a worker may die of it. It gets one for itself: what had ended there just
            before would be lost with it, and take the blame.

        Raises
        ------
        WorkerDied
            The worker died at it.
        LaunchError
            There is no worker, or it cannot do calls.
        """
        losses = 0
        while True:
            call = Call(pickled, is_suspect=is_suspect or losses > 0, losses=losses)
            place = await self._seat(call)
            try:
                answer = await self._at(place, call)
            finally:
                place.calls.remove(call)
                self._tell()
            losses = call.losses
            if answer != WITHDRAWN:
                went_well, value = pickle.loads(answer)
                if went_well:
                    return value
                raise value

    def update(self, addresses: set[str]) -> None:
        """Take note of the workers that the scheduler has."""
        for address in self.places.keys() - addresses:
            self.lose(address)
        now = time.monotonic()
        self._lost_at = {
            address: at
            for address, at in self._lost_at.items()
            if address in addresses and now < at + LOST_SECONDS
        }
        for address in addresses - self.places.keys() - self._lost_at.keys():
            self.places[address] = Place(address)
        self._tell()

    def lose(self, address: str, guilty: Call | None = None) -> None:
        """Give up a worker; without a guilty call it is the one it had begun."""
        place = self.places.pop(address, None)
        if place is not None:
            first = place.calls[0] if place.calls else None
            place.lost.set_result(guilty or first)
            self._lost_at[address] = time.monotonic()

    def lose_for_no_fault(self, address: str) -> None:
        """Give up a worker that is gone for reasons of its own."""
        place = self.places.pop(address, None)
        if place is not None:
            place.lost.set_result(None)

    def retire(self, addresses: Iterable[str]) -> None:
        """Give some workers no more calls."""
        for address in addresses:
            place = self.places.get(address)
            if place is not None and not place.is_leaving:
                place.is_leaving = True
                for call in place.calls[1:]:
                    self._spawn(self._ask_back(place, call))

    def are_busy(self, addresses: Iterable[str]) -> bool:
        """Tell whether any of some workers has a call."""
        return any(a in self.places and self.places[a].calls for a in addresses)

    def begun(self) -> set[int]:
        """Return the `id` of the pickle of each call that a worker is at; for any thread."""
        return {
            id(call.pickled) for place in list(self.places.values()) for call in place.calls[:1]
        }

    def abandon(self, pickled: bytes) -> str | None:
        """Give up the worker that a call is at; return its address."""
        for address, place in self.places.items():
            for call in place.calls:
                if call.pickled is pickled:
                    call.is_ended = True
                    self.lose(address, call)
                    return address
        return None

    def scatter(self) -> None:
        """Give up all workers, for no fault of theirs."""
        while self.places:
            _, place = self.places.popitem()
            place.lost.set_result(None)

    def give_up(self, trouble: Exception) -> None:
        """End all calls, and those to come."""
        self.trouble = self.trouble or trouble
        self.scatter()
        self._tell()

    async def _seat(self, call: Call) -> Place:
        """Wait for a worker that can take one more call, and put it there."""
        self._waiting += 1
        try:
            while self.trouble is None:
                staying = (p for p in self.places.values() if not p.is_leaving)
                place = min(staying, key=lambda p: len(p.calls), default=None)
                if place is not None and place.takes(call):
                    place.calls.append(call)
                    return place
                await self._changed.wait()
            raise self.trouble
        finally:
            self._waiting -= 1

    async def _at(self, place: Place, call: Call) -> bytes:
        """Have a call done at a place; `WITHDRAWN` if it has to be done at another."""
        future = self._client.submit(
            pickle.loads,
            pickle.dumps(Errand(call.ticket, self._log, call.pickled)),
            key=call.ticket,
            workers=[place.address],
            pure=False,
        )
        answer = self._spawn(self._answer(future, place, call))
        try:
            ends: set[asyncio.Future[Any]] = {answer, place.lost, call.withdrawn}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            told = answer.result() if answer.done() else None
            if told is not None:
                return told
            if place.lost.done() and place.lost.result() is call:
                await self._blame(place, call)
            return WITHDRAWN
        finally:
            # Its answer is not cancelled: the client fetches those of several calls at once, and
            # would cancel them all.
            call.is_left = True
            future.release()

    async def _blame(self, place: Place, call: Call) -> None:
        """Have a call answer for the worker that was lost at it, if it was its fault.

        Raises
        ------
        WorkerDied
            It was, or it is the call at which worker after worker is lost.
        """
        reason = await self._reason(place.address)
        is_proven = False
        call.losses += 1
        if reason is None and call.is_ended:
            reason = "the worker was ended, since its task took too long"
        elif reason is None and call.losses >= MOST_LOSSES:
            reason = f"{call.losses} workers were lost that were at it, nobody knows why"
            is_proven = True
        if reason is not None:
            self.latest_reason = reason
            raise WorkerDied(reason, is_proven=is_proven)

    async def _answer(self, future: Any, place: Place, call: Call) -> bytes | None:
        """Return the answer once it is there; None if the place is lost."""
        try:
            return bytes(await future)
        except KilledWorker:
            self.lose(place.address)
        except (CancelledError, asyncio.CancelledError):
            if not future.cancelled():
                raise
            if not call.is_left:
                # The connection to the scheduler is lost, and all that it knew with it.
                self.scatter()
        except Exception as error:
            raise LaunchError(
                f"the dask worker {place.address} cannot do tasks ({error}): it needs the "
                "versions of Python and hpckit that this command has, and the job's packages"
            ) from None
        return None

    def _tell(self) -> None:
        """Wake those that wait for a place; an idle one gets what waits for another."""
        self._changed.set()
        self._changed = asyncio.Event()
        idle = any(not place.calls and not place.is_leaving for place in self.places.values())
        if not idle or self._waiting:
            return
        for place in self.places.values():
            if len(place.calls) == DEPTH and not place.calls[-1].is_asked_back:
                self._spawn(self._ask_back(place, place.calls[-1]))
                return

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin something in the background; the event loop itself does not hold it."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _ask_back(self, place: Place, call: Call) -> None:
        call.is_asked_back = True
        with suppress(Exception):
            told = await self._client.run(withdraw, call.ticket, workers=[place.address])
            if told.get(place.address) and not call.withdrawn.done():
                call.withdrawn.set_result(None)
