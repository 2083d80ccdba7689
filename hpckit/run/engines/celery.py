"""Celery workers that come and go, on any node that sees the run directories.

Nobody but the broker tells the driver and its workers of each other. What it knows of its calls
it compares with what it sees there each second: a call whose worker has fallen silent ends with
`WorkerDied`, one that nobody has begun and that is nowhere to be found is sent again. Each
message is begun once at most, since whoever begins it takes its id out of a set.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from kombu.exceptions import OperationalError
from redis import RedisError

from hpckit.errors import HpckitError, LaunchError, UsageError
from hpckit.run.batch import Outcome, run_batch
from hpckit.run.celery import broker as keys
from hpckit.run.celery.app import TASK, BatchApp, queue
from hpckit.run.celery.broker import FORM, parse_broker
from hpckit.run.celery.crew import BEAT_SECONDS, Crew
from hpckit.run.celery.flights import Flight, Flights, Sight
from hpckit.run.celery.wire import Begun, Call, Refused, WireError, decode_reply, encode_call
from hpckit.run.engines import Engine, WorkerDied, Workplace
from hpckit.threads import VARIABLES
from hpckit.variables import BROKER

DRIVER_SECONDS = 30
"""Without a sign of life from its driver, a call is not begun any more, and ended if it was."""

REPLIES_SECONDS = 3600
LEFTOVER_SECONDS = 86400
"""After which what drivers and workers have left in Redis is gone."""

ORDER_SECONDS = 60
LONGEST_WAIT = 2.0
"""Between two tries to reach the broker again."""

BROKEN = (RedisError, OSError, OperationalError)
DRIVER = "driver"


class CeleryEngine(Engine):
    """Hands batches to whatever workers listen to a broker.

    Parameters
    ----------
    place
        Its address is the broker's URL; how many tasks at a time is for the workers to say.

    Raises
    ------
    LaunchError
        The broker does not answer, or refuses the password.
    """

    needs = "celery"
    has_address = True

    def __init__(self, place: Workplace) -> None:
        if place.address is None:
            raise UsageError(f"--engine celery needs a broker: set {BROKER}={FORM}")
        self._broker = parse_broker(place.address)
        self._redis = self._broker.reach()
        self._app = BatchApp(self._broker)
        self._session = secrets.token_hex(8)
        self._open, self._replies = keys.open_key(self._session), keys.replies_key(self._session)
        self._flights = Flights(self._session)
        self._crew = Crew()
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._is_cut_off = self._is_alone = False
        self._latest_death = "the worker process died"
        self.workers = 1
        try:
            self._look()
        except BROKEN as error:
            raise LaunchError(self._broker.told(error)) from None
        self._listener = threading.Thread(target=self._run, name="hpckit-celery", daemon=True)
        self._listener.start()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand in a call of `run_batch`, the only function that workers call."""
        if fn is not run_batch or kwargs:
            raise TypeError(f"{fn!r}: Celery's workers call run_batch alone")
        spec, indices, attempt = args
        flight = self._flights.add(spec, indices, attempt)
        if not self._is_cut_off:
            with suppress(*BROKEN):
                self._send(flight)
        return flight.future

    def close(self) -> None:
        """Leave the workers, which wait for the next driver."""
        self._leave()

    def kill(self) -> None:
        """Have workers end what they are at, and leave them."""
        with suppress(*BROKEN):
            for flight in self._flights.begun():
                self._order_end(flight)
        self._leave()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End, as `concurrent.futures` has it."""
        self.close()

    def abandon(self, call: Future[Any]) -> None:
        """End the process at a call; the worker starts another when it needs one."""
        flight = self._flights.of(call)
        if flight is None:
            return
        flight.is_abandoned = True
        with suppress(*BROKEN):
            if flight.worker is not None:
                self._order_end(flight)
            elif self._redis.hdel(self._open, flight.id(self._session)):
                self._flights.land(flight, WorkerDied("it was ended before any worker began it"))

    def death(self) -> str:
        """Leave the workers to a new engine; say how the last one that died did."""
        self.kill()
        return self._latest_death

    def _leave(self) -> None:
        self._ended.set()
        if self._listener is not threading.current_thread():
            self._listener.join(keys.CONNECT_SECONDS)
        with suppress(*BROKEN):
            self._redis.delete(self._open, self._replies)
        with suppress(*BROKEN):
            self._app.close()
        self._flights.land_all(WorkerDied("the driver has left its workers"))

    def _order_end(self, flight: Flight) -> None:
        assert flight.worker is not None
        orders = keys.orders_key(flight.worker)
        pipe = self._redis.pipeline()
        pipe.rpush(orders, flight.id(self._session))
        pipe.expire(orders, ORDER_SECONDS)
        pipe.execute()

    def _run(self) -> None:
        """Listen, look and send until the end: the engine's own thread."""
        wait = 0.1
        due = time.monotonic() + BEAT_SECONDS
        while not self._ended.is_set():
            try:
                self._listen(due)
                if time.monotonic() >= due:
                    self._look()
                    due = time.monotonic() + BEAT_SECONDS
                wait = 0.1
            except BROKEN as error:
                self._cut_off(error)
                self._ended.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            except Exception as error:
                # The driver waits for futures that nobody else would end.
                self._flights.land_all(HpckitError(f"the engine celery failed: {error!r}"))
                raise

    def _listen(self, due: float) -> None:
        """Take one reply, if any comes until a time."""
        seconds = max(due - time.monotonic(), 0.01)
        found: Any = self._redis.blpop([self._replies], timeout=seconds)
        if found is not None:
            self._take(found[1])

    def _take(self, data: bytes) -> None:
        try:
            session, number, turn, reply = decode_reply(data)
        except WireError as error:
            self._take_broken(error)
            return
        flight = self._flights.get(number)
        if flight is None or session != self._session:
            return
        if isinstance(reply, Begun):
            self._crew.meet(reply.worker, time.monotonic())
            self._flights.was_begun(flight, turn, reply.worker)
            if flight.is_abandoned:
                self._order_end(flight)
        elif isinstance(reply, Outcome):
            self._flights.land(flight, flight.checked(reply))
        elif isinstance(reply, Refused):
            self._flights.land(flight, Outcome(None, LaunchError(reply.reason)))
        elif turn == flight.turn:
            self._lose(flight, WorkerDied(reply.reason, reply.peak_bytes))

    def _lose(self, flight: Flight, death: WorkerDied) -> None:
        self._latest_death = death.reason
        self._flights.land(flight, death)

    def _take_broken(self, error: WireError) -> None:
        session, number, _ = error.call or ("", 0, 0)
        flight = self._flights.get(number)
        if flight is not None and session == self._session:
            trouble = HpckitError(f"what came back from a worker cannot be read: {error}")
            self._flights.land(flight, Outcome(None, trouble))

    def _look(self) -> None:
        """Compare what is known of the calls with what is to be seen, and mend it."""
        sight = self._seen()
        self._reached()
        dead = self._crew.bury(sight.now)
        for flight in self._flights.begun():
            if flight.worker in dead:
                gone = f"the worker {flight.worker} is gone: it was killed, or its node is away"
                self._lose(flight, WorkerDied(gone))
        for flight in self._flights.lost(sight):
            name = flight.id(self._session)
            # If somebody has taken it this very moment, it is not lost.
            if self._redis.hdel(self._open, name) or name not in sight.unclaimed:
                flight.send_again()
        for flight in self._flights.unsent():
            self._send(flight)
        self.workers = max(self._crew.size, 1)
        self._tell_of_workers()

    def _seen(self) -> Sight:
        pipe = self._redis.pipeline()
        pipe.hset(self._open, DRIVER, "1")
        pipe.hkeys(self._open)
        pipe.llen(keys.QUEUE)
        pipe.expire(self._open, DRIVER_SECONDS)
        pipe.expire(self._replies, REPLIES_SECONDS)
        for key in (keys.QUEUE, *keys.UNACKED[:2]):
            pipe.expire(key, LEFTOVER_SECONDS)
        is_new, names, queued, *_ = pipe.execute()
        now = time.monotonic()
        if is_new:
            # Redis has lost its data, or this process has slept; whoever claims now, does so late.
            self._crew.forgive(now)
        self._crew.look(self._redis, now)
        return Sight(self._crew, frozenset(name.decode() for name in names), queued, now)

    def _send(self, flight: Flight) -> None:
        with self._sending:
            if flight.rank is not None:
                return
            name = flight.id(self._session)
            pipe = self._redis.pipeline()
            pipe.hset(self._open, mapping={DRIVER: "1", name: "1"})
            pipe.expire(self._open, DRIVER_SECONDS)
            pipe.execute()
            self._app.send_task(
                TASK,
                args=[encode_call(self._call(flight))],
                task_id=name,
                queue=queue(),
                argsrepr="",
                ignore_result=True,
                retry=False,
            )
            self._flights.was_sent(flight)

    def _call(self, flight: Flight) -> Call:
        return Call(
            session=self._session,
            number=flight.number,
            turn=flight.turn,
            spec=flight.spec,
            indices=flight.indices,
            attempt=flight.attempt,
            directory=str(Path.cwd()),
            threads={n: os.environ[n] for n in VARIABLES.values() if n in os.environ},
        )

    def _cut_off(self, error: Exception) -> None:
        if not self._is_cut_off:
            self._is_cut_off = True
            _tell(f"{self._broker.told(error)}; the run goes on once it is there again")

    def _reached(self) -> None:
        if self._is_cut_off:
            self._is_cut_off = False
            _tell(f"the broker at {self._broker} is there again")

    def _tell_of_workers(self) -> None:
        """Say once that nobody is there to work."""
        is_alone = not self._crew.members
        if is_alone and not self._is_alone:
            _tell(f"waiting for workers: hpckit worker --broker redis://:***@{self._broker}/…")
        self._is_alone = is_alone


def _tell(message: str) -> None:
    print(f"hpckit: {message}", file=sys.stderr, flush=True)
