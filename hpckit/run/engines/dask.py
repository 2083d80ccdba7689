"""Dask workers: those of a scheduler whose address is given, or processes on this machine."""

from __future__ import annotations

import asyncio
import pickle
import signal
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from threading import Thread
from typing import Any, ClassVar, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from hpckit.errors import LaunchError
from hpckit.run.batch import run_batch
from hpckit.run.engines import Engine, Workplace
from hpckit.run.engines.dask_crew import Crew
from hpckit.run.engines.dask_ground import GivenScheduler, Ground, OwnCluster, patience
from hpckit.run.engines.pilots import Backlog
from hpckit.store.progress import Muster

P = ParamSpec("P")
T = TypeVar("T")

WATCH_SECONDS = 0.2
"""Between two questions to the scheduler which workers it has."""

END_SECONDS = 10.0
KILL_SECONDS = 3.0
"""What the orderly end, and the other, may take."""


class DaskEngine(Engine):
    """Dask workers, each given a call by the driver and one that waits.

    The client, all bookkeeping and, unless one is given, the scheduler live in one thread. Tasks
    run in a thread of their worker's, so that they cannot set signal handlers.
    """

    needs: ClassVar[str] = "dask"
    has_address: ClassVar[bool] = True
    has_pilots: ClassVar[bool] = True
    batch_seconds: ClassVar[float] = 0.8

    def __init__(self, place: Workplace) -> None:
        super().__init__(place)
        self._is_given = place.address is not None
        self._log = place.log if self._is_given else None
        self._ground = _ground(place)
        self._backlog = Backlog(0)
        if self._ground.grows:
            self.look_seconds = WATCH_SECONDS
        self._client: Any = None
        self._crew: Crew | None = None
        self._pickled: WeakKeyDictionary[Future[Any], bytes] = WeakKeyDictionary()
        made: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = Thread(target=self._serve, args=(made,), name="hpckit-dask", daemon=True)
        self._thread.start()
        self._loop = made.result()
        try:
            self._do(self._start())
        except BaseException:
            self.kill()
            raise

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand in a call; `fn` is known to the workers by its name."""
        assert self._crew is not None
        pickled = pickle.dumps((fn, args, kwargs), protocol=5)
        # The last argument of `run_batch` is the attempt.
        is_suspect = fn is run_batch and args[-1] != 1
        future: Future[T] = self._begin(self._crew.work(pickled, is_suspect=is_suspect))
        self._pickled[future] = pickled
        return future

    def waiting(self, calls: Collection[Future[Any]]) -> Iterable[Future[Any]]:
        """Return those of some calls that are not the first one at any worker."""
        assert self._crew is not None
        begun = self._crew.begun()
        return [call for call in calls if id(self._pickled[call]) not in begun]

    def abandon(self, call: Future[Any]) -> None:
        """End the worker at a call."""
        self._begin(self._abandon(self._pickled[call]))

    def muster(self) -> Muster | None:
        """Return how many workers there are, wanted, and queued, where pilots hold them."""
        return self._ground.muster

    def expect(self, backlog: Backlog) -> None:
        """Hear what is left of the farm: pilots come and go by it."""
        self._backlog = backlog

    def close(self) -> None:
        """End the workers, or leave those of a given scheduler."""
        self._end(self._close(), END_SECONDS)

    def kill(self) -> None:
        """Kill the workers; those of a given scheduler are restarted if they are at a task."""
        self._end(self._kill(), KILL_SECONDS)

    def finish(self) -> None:
        """Leave no batch job of pilots in the queue."""
        self._ground.finish()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all, as executors do."""
        self.close()

    def death(self) -> str:
        """Say how the latest worker that died has ended."""
        self.kill()
        return (self._crew and self._crew.latest_reason) or super().death()

    def _serve(self, made: Future[asyncio.AbstractEventLoop]) -> None:
        # What this thread starts, it starts deaf to Ctrl-C, from the first moment on; and no
        # Ctrl-C breaks into the making of the loop, as it would in the main thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        made.set_result(loop)
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _do(self, work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        return self._begin(work).result(seconds)

    def _end(self, work: Coroutine[Any, Any, None], seconds: float) -> None:
        if not self._thread.is_alive():
            work.close()
            return
        with suppress(Exception):
            self._do(work, seconds)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(KILL_SECONDS)

    async def _start(self) -> None:
        self._client = await self._ground.open()
        self._crew = Crew(self._client, self._log, self._ground.reason)
        self._watching = asyncio.ensure_future(self._watch(self._crew))
        while not (self._crew.places or self._ground.grows or self._crew.trouble):
            await asyncio.sleep(0.01)
        if self._crew.trouble is not None:
            raise self._crew.trouble

    async def _watch(self, crew: Crew) -> None:
        """Tell the crew which workers there are, until there can be none any more."""
        since = time.monotonic()
        while crew.trouble is None:
            with suppress(Exception):
                crew.update(await self._ground.addresses())
            try:
                self._ground.tend(crew, self._backlog)
            except LaunchError as error:
                crew.give_up(error)
            if self._client.status != "running":
                crew.scatter()
            if crew.places or self._ground.grows or self._client.status == "connecting":
                since = time.monotonic()
            if self._client.status == "closed" or time.monotonic() > since + patience():
                crew.give_up(LaunchError(self._ground.gone()))
            if self._is_given and crew.places:
                self.workers = len(crew.places)
            elif self._ground.grows:
                self.workers = max(len(crew.places), 1)
            await asyncio.sleep(WATCH_SECONDS)

    async def _abandon(self, pickled: bytes) -> None:
        assert self._crew is not None
        address = self._crew.abandon(pickled)
        if address is not None:
            await self._ground.end(address)

    async def _kill(self) -> None:
        places = self._crew.places.values() if self._crew is not None else []
        busy = {place.address for place in places if place.calls}
        self._give_up()
        await self._ground.end_all(busy)
        await self._close()

    async def _close(self) -> None:
        self._give_up()
        if self._client is not None:
            await self._client.close()
        await self._ground.close()

    def _give_up(self) -> None:
        if self._crew is not None:
            self._crew.give_up(BrokenExecutor("the engine has been ended"))


def _ground(place: Workplace) -> Ground:
    if place.pilots is not None:
        from hpckit.run.engines.dask_pilots import PilotGround

        return PilotGround(place)
    return GivenScheduler(place) if place.address is not None else OwnCluster(place)
