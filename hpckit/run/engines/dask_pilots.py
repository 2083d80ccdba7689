"""Where workers come from that are in batch jobs of their own: a scheduler here, and its pilots."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import dask
from distributed import Client
from distributed.core import Status

from hpckit.errors import HpckitError, LaunchError
from hpckit.run.engines import Workplace
from hpckit.run.engines.certificates import make_certificates
from hpckit.run.engines.dask_crew import Crew
from hpckit.run.engines.dask_fleet import Fleet
from hpckit.run.engines.dask_ground import DRIVER, OWN
from hpckit.run.engines.dask_pilot import ENDED, LEAVING, TOPIC, end_worker
from hpckit.run.engines.dask_private import PrivateScheduler, dashboard_socket
from hpckit.run.engines.dask_worker import silence
from hpckit.run.engines.pilots import Backlog, Pilots
from hpckit.store.contact import end_contact, tell_address, tell_dashboard
from hpckit.store.progress import Muster

_before = signal.getsignal(signal.SIGINT)
from dask_jobqueue import SLURMCluster  # noqa: E402
from dask_jobqueue.slurm import SLURMJob  # noqa: E402

# Its import has Ctrl-C end the process on the spot.
signal.signal(signal.SIGINT, _before)

REASON_SECONDS = 1.0
"""For which word is waited for of how a worker ended, and of one that is to end."""


class PilotGround:
    """A scheduler in this process; its workers are in batch jobs that come and go.

    All connections are encrypted and need the key that is made here for one session.
    """

    grows = True

    def __init__(self, place: Workplace) -> None:
        assert place.pilots is not None
        self._pilots = place.pilots
        self._cluster: Any = None
        self._client: Any = None
        self._fleet: Fleet | None = None
        self._endings: dict[str, str] = {}
        self._held = ExitStack()
        self._calls = ThreadPoolExecutor(thread_name_prefix="hpckit-slurm")

    async def open(self) -> Client:
        """Start the scheduler, and leave word for pilots where it is; see `Ground`.

        Raises
        ------
        LaunchError
            It cannot listen there.
        """
        silence()
        dask.config.set({**OWN, **DRIVER})
        asyncio.get_running_loop().set_default_executor(self._calls)
        await asyncio.to_thread(self._pilots.queue.open)
        socket = self._held.enter_context(dashboard_socket())
        self._cluster = SLURMCluster(
            job_cls=_PilotJob,
            pilots=self._pilots,
            security=make_certificates(self._pilots.folder),
            protocol="tls://",
            scheduler_options={
                "host": self._pilots.host,
                "port": 0,
                "dashboard": socket is not None,
                "dashboard_address": None if socket is None else str(socket),
            },
            scheduler_cls=PrivateScheduler,
            silence_logs=logging.CRITICAL,
            asynchronous=True,
        )
        try:
            await self._cluster
        except RuntimeError as error:
            raise LaunchError(
                f"no dask scheduler can listen on {self._pilots.host} ({error.__cause__}): "
                "`interface` in the site names this machine's network that nodes reach"
            ) from error
        tell_address(self._pilots.folder, self._pilots.driver, self._cluster.scheduler.address)
        if socket is not None:
            tell_dashboard(self._pilots.folder, socket)
        self._fleet = Fleet(self._cluster, self._pilots)
        self._client = await Client(
            self._cluster, asynchronous=True, set_as_default=False, direct_to_workers=True
        )
        self._client.subscribe_topic(TOPIC, self._hear)
        return self._client

    async def addresses(self) -> set[str]:
        """Return where the workers are."""
        return set(self._cluster.scheduler.workers)

    async def reason(self, address: str) -> str | None:
        """Say how a worker ended if it did so by itself; None if its pilot was lost with it."""
        for _ in range(20):
            if address in self._endings:
                return f"the worker process {self._endings[address]}"
            await asyncio.sleep(REASON_SECONDS / 20)
        return None

    async def end(self, address: str) -> None:
        """Kill a worker and what its task has started; its nanny starts another."""
        with suppress(Exception):
            ended = self._client.run(end_worker, workers=[address], nanny=True)
            await asyncio.wait_for(ended, REASON_SECONDS)

    async def end_all(self, busy: set[str]) -> None:
        """Do without all pilots, whatever they are at: `finish` cancels their jobs."""
        end_contact(self._pilots.folder)
        if self._fleet is not None:
            self._fleet.cancel()

    @property
    def muster(self) -> Muster:
        """How many workers there are."""
        return Muster() if self._fleet is None else self._fleet.muster

    def tend(self, crew: Crew, backlog: Backlog) -> None:
        """Have as many pilots as the work that is left is worth; see `Fleet.tend`."""
        if self._fleet is not None:
            self._fleet.tend(crew, backlog)

    def gone(self) -> str:
        """Say that the own scheduler has failed."""
        return "dask's scheduler in this process has ended"

    async def close(self) -> None:
        """End all pilots, queued and running, and the scheduler."""
        end_contact(self._pilots.folder)
        if self._fleet is not None:
            await self._fleet.close()
        if self._cluster is not None:
            await self._cluster.close()
        self._held.close()

    def finish(self) -> None:
        """Leave no pilot in the queue; one that is being submitted is waited for, and ended too."""
        end_contact(self._pilots.folder)
        self._held.close()
        self._calls.shutdown(cancel_futures=True)
        try:
            self._pilots.queue.sweep()
        except HpckitError as error:
            print(
                f"hpckit: {error}: pilots of this run may be in the queue still: they end by "
                "themselves when they start, and `hpckit resume` ends them before it goes on",
                file=sys.stderr,
            )

    def _hear(self, event: Any) -> None:
        """Take note of what a pilot tells."""
        _, told = event
        if told["what"] == ENDED:
            self._endings[told["address"]] = told["how"]
        elif told["what"] == LEAVING and self._fleet is not None:
            self._fleet.is_leaving(told["job"])


class _PilotJob(SLURMJob):  # type: ignore[misc]
    """A job of dask-jobqueue's that has hpckit's script, and hpckit's client of Slurm."""

    def __init__(
        self, scheduler: Any = None, name: Any = None, *, pilots: Pilots, **options: Any
    ) -> None:
        # Cores and memory are for a script of dask-jobqueue's own.
        super().__init__(scheduler, name, cores=pilots.slots, memory="1GB", **options)
        self.queue = pilots.queue

    @contextmanager
    def job_file(self) -> Iterator[str]:
        """Yield the path of hpckit's script: dask-jobqueue's would be in /tmp, for all to read."""
        yield str(self.queue.path)

    async def _submit_job(self, script_filename: str) -> str:
        return await asyncio.to_thread(self.queue.submit)

    async def close(self) -> None:
        """Cancel the job, unless it is known to be over."""
        if self.job_id is not None:
            with suppress(HpckitError):
                await asyncio.to_thread(self.queue.cancel, [self.job_id])
        self.status = Status.closed
