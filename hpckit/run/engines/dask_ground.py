"""Where the workers of the engine dask come from: a cluster of its own, or one at an address."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Protocol

import cryptography  # noqa: F401  (for Security.temporary, which imports it late)
import dask
from dask.utils import parse_timedelta
from distributed import Client, Security
from distributed.comm import connect
from distributed.deploy.spec import SpecCluster

from hpckit.errors import LaunchError, UsageError
from hpckit.run.engines import Workplace
from hpckit.run.engines.dask_crew import Crew
from hpckit.run.engines.dask_nanny import GRACE_SECONDS, GroupNanny, kill_group
from hpckit.run.engines.dask_private import PrivateScheduler, PrivateWorker
from hpckit.run.engines.dask_worker import Settle, end_process, silence
from hpckit.run.engines.pilots import Backlog
from hpckit.store.progress import Muster

LOOPBACK = "127.0.0.1"

ANSWER_SECONDS = 10.0
"""For which a scheduler is looked for at the beginning."""

REASON_SECONDS = 1.0
"""For which the exit status of a worker is waited for that the scheduler has missed."""

STARTS = 3
"""Tries to start a cluster of our own."""

START_SECONDS = 60
"""What a new worker process has to reach the scheduler."""

OWN = {
    # Each call is placed by the driver, and is its own to repeat.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.deploy.lost-worker-timeout": "1 day",
    # A task that does not let other threads run is no reason to end its worker.
    "distributed.scheduler.worker-ttl": None,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    # Each look takes the interpreter from the tasks.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    # Loopback is faster than any compression.
    "distributed.comm.compression": None,
}
"""How a cluster is configured that nobody else uses."""

DRIVER = {"distributed.admin.large-graph-warning-threshold": "1 TiB"}
"""How the client is, which must not warn on the terminal."""


class Ground(Protocol):
    """Where workers come from.

    Attributes
    ----------
    grows
        Whether there may be no workers for as long as it takes.
    muster
        How many workers there are, where they come and go.
    """

    grows: bool

    @property
    def muster(self) -> Muster | None:
        """How many workers there are, where they come and go."""

    async def open(self) -> Client:
        """Return a client of the scheduler."""

    async def addresses(self) -> set[str]:
        """Return where the workers are."""

    def tend(self, crew: Crew, backlog: Backlog) -> None:
        """See to it that there are as many workers as the work that is left is worth."""

    async def reason(self, address: str) -> str | None:
        """Say how the worker that was at an address ended; None if no call is to blame."""

    async def end(self, address: str) -> None:
        """End a worker at once."""

    async def end_all(self, busy: set[str]) -> None:
        """End all work at once, of which there is some at `busy` addresses."""

    async def close(self) -> None:
        """Leave nothing behind."""

    def finish(self) -> None:
        """Leave nothing behind elsewhere, once the event loop has ended."""

    def gone(self) -> str:
        """Say that the scheduler is gone, and what can be done."""


class OwnCluster:
    """A scheduler in this process, and worker processes that end with it.

    All connections are on the loopback interface and need the key that is made here.
    """

    grows = False
    muster = None

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._cluster: Any = None

    async def open(self) -> Client:
        """Start all; see `Ground`."""
        silence()
        dask.config.set({**OWN, **DRIVER})
        security = Security.temporary()
        both = {"host": LOOPBACK, "protocol": "tls", "security": security}
        worker = {
            **both,
            "dashboard": False,
            "worker_class": PrivateWorker,
            "nthreads": 1,
            "memory_limit": None,
            "death_timeout": START_SECONDS,
            "silence_logs": logging.CRITICAL,
            "plugins": (Settle(self._place.log),),
        }
        for left in reversed(range(STARTS)):
            self._cluster = SpecCluster(
                scheduler={"cls": PrivateScheduler, "options": {**both, "dashboard": False}},
                workers={i: {"cls": _Nanny, "options": worker} for i in range(self._place.workers)},
                security=security,
                asynchronous=True,
            )
            try:
                await self._cluster
                break
            except Exception as error:
                # One that is killed as it starts takes all others with it.
                if not left:
                    raise LaunchError(f"dask's workers did not start: {error}") from error
                with suppress(Exception):
                    await self._cluster.close()
        return await Client(
            self._cluster, asynchronous=True, set_as_default=False, direct_to_workers=True
        )

    async def addresses(self) -> set[str]:
        """Return where the workers are."""
        return set(self._cluster.scheduler.workers)

    def tend(self, crew: Crew, backlog: Backlog) -> None:
        """Leave all to the nannies."""

    async def reason(self, address: str) -> str:
        """Say how a worker ended, from its exit status."""
        for _ in range(100):
            for nanny in self._nannies():
                if address in nanny.endings:
                    return f"the worker process {nanny.endings[address]}"
            await asyncio.sleep(REASON_SECONDS / 100)
        return "the worker process died"

    async def end(self, address: str) -> None:
        """Kill a worker and what its task has started; its nanny starts another."""
        for nanny in self._nannies():
            if nanny.worker_address == address:
                kill_group(nanny.pid)

    async def end_all(self, busy: set[str]) -> None:
        """Kill all workers, and what their tasks have started."""
        for nanny in self._nannies():
            # Or it would start another.
            nanny.close_gracefully()
            kill_group(nanny.pid)

    async def close(self) -> None:
        """End the workers and the scheduler."""
        if self._cluster is not None:
            await self._cluster.close()

    def finish(self) -> None:
        """All was here."""

    def gone(self) -> str:
        """Say that the own scheduler has failed."""
        return "dask's scheduler in this process has ended, or all of its workers have"

    def _nannies(self) -> list[Any]:
        return [] if self._cluster is None else list(self._cluster.workers.values())


class _Nanny(GroupNanny):
    """Remembers how its workers ended."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.endings: dict[str, str] = {}

    def note_end(self, address: str, how: str) -> None:
        self.endings[address] = how


class GivenScheduler:
    """A scheduler that is there already, with the workers that it has."""

    grows = False
    muster = None

    def __init__(self, place: Workplace) -> None:
        assert place.address is not None
        self.address = place.address
        self._run = place.log.parent.parent
        self._client: Any = None

    async def open(self) -> Client:
        """Connect to it; see `Ground`.

        Raises
        ------
        UsageError
            There is no scheduler.
        """
        silence()
        dask.config.set(DRIVER)
        try:
            arguments = Security().get_connection_args("client")
            seconds = min(patience(), ANSWER_SECONDS)
            comm = await connect(self.address, timeout=seconds, **arguments)
            await comm.close()
            self._client = await Client(
                self.address, asynchronous=True, set_as_default=False, timeout=patience()
            )
        except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
            raise UsageError(
                f"--address {self.address}: no dask scheduler answers ({_headline(error)}): "
                "an address looks like tcp://HOST:8786, as `dask scheduler` prints it"
            ) from None
        return self._client

    async def addresses(self) -> set[str]:
        """Return where the workers are."""
        return set(await self._client.scheduler.ncores())

    def tend(self, crew: Crew, backlog: Backlog) -> None:
        """Leave all to whoever has started them."""

    async def reason(self, address: str) -> str:
        """Say that a worker was lost: only its own machine knows more."""
        return f"the dask worker {address} was lost; its own output may say why"

    async def end(self, address: str) -> None:
        """End a worker process; if it has a nanny that starts another."""
        await self._end({address}, only_if_restarted=False)

    async def end_all(self, busy: set[str]) -> None:
        """End the tasks at work, by ending the worker processes that nannies start anew."""
        if busy:
            await self._end(busy, only_if_restarted=True)

    async def close(self) -> None:
        """Leave the scheduler and its workers as they are."""

    def finish(self) -> None:
        """Leave all to whoever has started them."""

    def gone(self) -> str:
        """Say what is missing and how to go on without losing what was done."""
        resume = f"hpckit resume {self._run}"
        if self._client is None or self._client.status == "running":
            return (
                f"{self.address}: this dask scheduler has no workers: start some with "
                f"`dask worker {self.address} --nthreads 1`, then go on with: "
                f"{resume} --address {self.address}"
            )
        return (
            f"{self.address}: the dask scheduler was lost and did not come back within "
            f"{patience():g} s; what was done is sealed, go on here with: "
            f"{resume} --engine processes"
        )

    async def _end(self, addresses: set[str], only_if_restarted: bool) -> None:
        with suppress(Exception):
            ended = self._client.run(end_process, only_if_restarted, workers=list(addresses))
            await asyncio.wait_for(ended, GRACE_SECONDS)


def patience() -> float:
    """Return for how many seconds a scheduler, or its first worker, is waited for: 30, by default.

    It is what dask itself takes for the limit of a connection.
    """
    return float(parse_timedelta(dask.config.get("distributed.comm.timeouts.connect")))


def _headline(error: BaseException) -> str:
    told = str(error) or type(error).__name__
    return told.splitlines()[0]
