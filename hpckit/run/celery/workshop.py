"""What a Celery worker does with a call, and how drivers see that it lives.

Each call comes in a thread, which gives it to a process of the call's driver. The worker says
each second that it lives and what it is at; it ends processes when their driver orders it, or
has not been heard of for long.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from redis import RedisError

from hpckit.errors import HpckitError
from hpckit.run.celery import broker as keys
from hpckit.run.celery.admission import check_call
from hpckit.run.celery.broker import Broker
from hpckit.run.celery.crew import BEAT_SECONDS, DEATH_SECONDS
from hpckit.run.celery.runner import Runner, RunnerDied
from hpckit.run.celery.runners import Runners
from hpckit.run.celery.wire import Begun, Call, Died, Refused, WireError, decode_call, encode_reply

T = TypeVar("T")

LEFTOVER_SECONDS = 86400
REPLY_SECONDS = 3600
"""After which nobody will read a reply any more."""

MAX_REPLY = 500 << 20
"""Bytes: Redis takes no value of 512 MiB."""

LONGEST_WAIT = 2.0
"""Between two tries to reach the broker again."""

PATIENT_LOOKS = 4
"""How often a driver must be missed: after a restart, the broker knows none for a moment."""

BROKEN = (RedisError, OSError)


class Left(Exception):
    """The worker ends while it waits for the broker."""


class Workshop:
    """A worker's processes, and its word with drivers.

    Attributes
    ----------
    name
        Under which drivers know it.
    served
        How many batches it has worked on.
    """

    def __init__(self, broker: Broker, size: int) -> None:
        self.broker = broker
        self.size = size
        self.host = os.uname().nodename
        self.name = f"{self.host}-{os.getpid()}-{secrets.token_hex(4)}"
        self.served = 0
        self._redis = broker.reach()
        self._runners = Runners(size)
        self._held: dict[str, Runner | None] = {}
        self._condemned: set[str] = set()
        self._missed: dict[str, int] = {}
        self._beats = 0
        self._is_cut_off = False
        self._ended = threading.Event()
        self._beater = threading.Thread(target=self._beat_on, name="hpckit-beat", daemon=True)

    def open(self) -> None:
        """Let drivers know that it is there."""
        self._beat()
        self._beater.start()

    @property
    def held(self) -> int:
        """How many calls it is at."""
        return len(self._held)

    def serve(self, text: str) -> None:
        """Work on a call, unless it was begun before, or nobody waits for it any more."""
        try:
            call = decode_call(text)
        except WireError as error:
            tell(f"a call from the broker is refused: {error}")
            return
        self._held[call.id] = None
        try:
            if self._is_first(call):
                self._say(call, self._answer(call, text))
        except Left:
            pass
        finally:
            self._held.pop(call.id, None)
            self._condemned.discard(call.id)

    def close(self) -> None:
        """Leave, once no call is held."""
        self._ended.set()
        self._runners.end_idle()
        with suppress(*BROKEN):
            self._redis.delete(keys.beat_key(self.name))
            self._redis.srem(keys.WORKERS, self.name)

    def kill(self) -> None:
        """End all processes now."""
        self._runners.kill()

    def _is_first(self, call: Call) -> bool:
        """Take the id of a call; tell whether it was still there."""
        key = keys.open_key(call.session)
        return bool(self._patiently(lambda: self._redis.hdel(key, call.id)))

    def _answer(self, call: Call, text: str) -> bytes:
        try:
            check_call(call)
            self._say(call, encode_reply(call.id, Begun(self.name)))
            runner = self._runners.take(call)
        except HpckitError as error:
            return encode_reply(call.id, Refused(f"the worker on {self.host}: {error}"))
        self._held[call.id] = runner
        if call.id in self._condemned:
            runner.kill()
        try:
            answer = runner.work(text.encode())
        except RunnerDied as death:
            self._runners.forget(runner)
            return encode_reply(call.id, Died(death.reason, death.peak_bytes))
        self._held[call.id] = None
        self._runners.give_back(runner)
        self.served += 1
        if len(answer) > MAX_REPLY:
            what = f"the results of a batch are {len(answer) >> 20} MiB on their way to the driver"
            told = f"{what}, and Redis carries {MAX_REPLY >> 20} MiB: take the engine processes"
            return encode_reply(call.id, Refused(told))
        return answer

    def _say(self, call: Call, reply: bytes) -> None:
        key = keys.replies_key(call.session)

        def push() -> None:
            pipe = self._redis.pipeline()
            pipe.rpush(key, reply)
            pipe.expire(key, REPLY_SECONDS)
            pipe.execute()

        self._patiently(push)

    def _patiently(self, step: Callable[[], T]) -> T:
        """Do a step, however long the broker is away."""
        wait = 0.1
        while True:
            try:
                return step()
            except BROKEN:
                if self._ended.wait(wait):
                    raise Left from None
                wait = min(2 * wait, LONGEST_WAIT)

    def _beat_on(self) -> None:
        """Live: the worker's own thread."""
        wait = 0.1
        while not self._ended.is_set():
            try:
                self._beat()
                self._reached()
                self._miss_drivers()
                self._heed_orders()
                wait = 0.1
            except BROKEN as error:
                self._cut_off(error)
                self._ended.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _beat(self) -> None:
        self._beats += 1
        told = json.dumps([self._beats, self.size, list(self._held)])
        pipe = self._redis.pipeline()
        pipe.sadd(keys.WORKERS, self.name)
        pipe.expire(keys.WORKERS, LEFTOVER_SECONDS)
        pipe.set(keys.beat_key(self.name), told, ex=int(DEATH_SECONDS))
        pipe.execute()

    def _heed_orders(self) -> None:
        """Wait for an order until the next beat is due."""
        found: Any = self._redis.blpop([keys.orders_key(self.name)], timeout=BEAT_SECONDS)
        if found is None:
            return
        call = found[1].decode(errors="replace")
        if call in self._held:
            self._condemned.add(call)
            if (runner := self._held[call]) is not None:
                runner.kill()

    def _miss_drivers(self) -> None:
        """End the processes of drivers that have not been there for some beats."""
        there = self._runners.sessions
        self._missed = {session: self._missed.get(session, 0) for session in there}
        for session in there:
            is_there = self._redis.exists(keys.open_key(session))
            self._missed[session] = 0 if is_there else self._missed[session] + 1
            if self._missed[session] >= PATIENT_LOOKS:
                self._runners.end(session)

    def _cut_off(self, error: Exception) -> None:
        if not self._is_cut_off:
            self._is_cut_off = True
            tell(f"{self.broker.told(error)}; it is tried again and again")

    def _reached(self) -> None:
        if self._is_cut_off:
            self._is_cut_off = False
            tell(f"the broker at {self.broker} is there again")


def tell(message: str) -> None:
    """Print a line for whoever has started the worker."""
    print(f"hpckit: {message}", file=sys.stderr, flush=True)
