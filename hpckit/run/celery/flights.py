"""The calls that a driver has handed in to Celery, and where each of them is."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from hpckit.errors import HpckitError
from hpckit.run.batch import FarmSpec, Outcome
from hpckit.run.celery.crew import Crew

DOUBT_SECONDS = 4.0
"""A call that is nowhere to be found for so long is sent again."""

CallFuture = Future[Outcome]


@dataclass(eq=False)
class Flight:
    """A call.

    Attributes
    ----------
    turn
        How often it was sent before.
    rank
        Which of the driver's messages it is; None until it has been sent.
    worker
        Who has begun it.
    doubtful
        Since when it is nowhere to be found.
    is_abandoned
        Whether whoever begins it is to end it.
    """

    number: int
    spec: FarmSpec
    indices: Sequence[int]
    attempt: int
    future: CallFuture = field(default_factory=Future)
    turn: int = 0
    rank: int | None = None
    worker: str | None = None
    doubtful: float | None = None
    is_abandoned: bool = False

    def id(self, session: str) -> str:
        """Return the id of its latest message."""
        return f"{session}.{self.number}.{self.turn}"

    def checked(self, outcome: Outcome) -> Outcome:
        """Return what came of it, if it is about its tasks."""
        block = outcome.block
        if block is None or block.task.tolist() == list(self.indices[: len(block)]):
            return outcome
        return Outcome(None, HpckitError("what came back from a worker is of other tasks"))

    def has_begun(self, turn: int, worker: str) -> None:
        """Take note of who works on it; whoever got an earlier message will answer as well."""
        self.turn, self.worker, self.doubtful = turn, worker, None

    def send_again(self) -> None:
        """Let it be sent again, under another id."""
        self.turn, self.rank, self.worker, self.doubtful = self.turn + 1, None, None, None


@dataclass(frozen=True)
class Sight:
    """What a driver saw in Redis.

    Attributes
    ----------
    unclaimed
        The ids of its calls that nobody has begun.
    queued
        How many messages, of whatever driver, wait in the queue.
    """

    crew: Crew
    unclaimed: frozenset[str]
    queued: int
    now: float


class Flights:
    """All calls of a driver; any thread may use it."""

    def __init__(self, session: str) -> None:
        self.session = session
        self._lock = threading.RLock()
        self._flights: dict[int, Flight] = {}
        self._made = 0
        self._sent = 0
        self._latest_begun = 0

    def add(self, spec: FarmSpec, indices: Sequence[int], attempt: int) -> Flight:
        """Take a call."""
        with self._lock:
            self._made += 1
            flight = Flight(self._made, spec, indices, attempt)
            flight.future.set_running_or_notify_cancel()
            self._flights[flight.number] = flight
            return flight

    def all(self) -> list[Flight]:
        """Return all calls that have not ended."""
        with self._lock:
            return list(self._flights.values())

    def of(self, future: CallFuture) -> Flight | None:
        """Return the call with a future, unless it has ended."""
        return next((flight for flight in self.all() if flight.future is future), None)

    def get(self, number: int) -> Flight | None:
        """Return a call, unless it has ended."""
        return self._flights.get(number)

    def unsent(self) -> list[Flight]:
        """Return the calls that must be sent."""
        return [flight for flight in self.all() if flight.rank is None]

    def begun(self) -> list[Flight]:
        """Return the calls that somebody works on."""
        return [flight for flight in self.all() if flight.worker is not None]

    def was_sent(self, flight: Flight) -> None:
        """Take note that a call was sent."""
        self._sent += 1
        flight.rank = self._sent

    def was_begun(self, flight: Flight, turn: int, worker: str) -> None:
        """Take note that a worker has begun a call."""
        self._latest_begun = max(self._latest_begun, flight.rank or 0)
        flight.has_begun(turn, worker)

    def land(self, flight: Flight, end: Outcome | BaseException) -> None:
        """End a call; its first end counts."""
        with self._lock:
            if self._flights.pop(flight.number, None) is None:
                return
        if isinstance(end, BaseException):
            flight.future.set_exception(end)
        else:
            flight.future.set_result(end)

    def land_all(self, end: BaseException) -> None:
        """End all calls."""
        for flight in self.all():
            self.land(flight, end)

    def lost(self, sight: Sight) -> list[Flight]:
        """Return the calls that have been nowhere for `DOUBT_SECONDS`."""
        found = []
        for flight in self.all():
            if flight.rank is None or not self._is_nowhere(flight, sight):
                flight.doubtful = None
            elif flight.doubtful is None:
                flight.doubtful = sight.now
            elif sight.now - flight.doubtful > DOUBT_SECONDS:
                found.append(flight)
        return found

    def _is_nowhere(self, flight: Flight, sight: Sight) -> bool:
        """Tell whether a call seems to be neither in the queue nor at a worker."""
        name = flight.id(self.session)
        if any(name in member.held for member in sight.crew.members.values()):
            return False
        if flight.worker is not None:
            # What a silent worker is at, its death or its next beat will say.
            return sight.crew.speaks(flight.worker, sight.now)
        if name not in sight.unclaimed:
            return True
        # The queue is worked off in its order.
        return sight.queued == 0 or (flight.rank or 0) < self._latest_begun
