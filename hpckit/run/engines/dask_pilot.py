"""What a pilot runs: dask workers for the driver of a run, until it needs them no more."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
from distributed import Security
from distributed.comm import connect, get_address_host_port
from distributed.core import Status
from distributed.utils import get_ip

from hpckit.errors import LaunchError
from hpckit.run.engines.certificates import read_certificates
from hpckit.run.engines.dask_ground import OWN
from hpckit.run.engines.dask_nanny import GroupNanny, kill_group
from hpckit.run.engines.dask_private import PrivateWorker
from hpckit.run.engines.dask_worker import Settle, silence
from hpckit.store.contact import told_address

TOPIC = "hpckit-pilots"
ENDED, LEAVING = "ended", "leaving"
"""What pilots tell the driver under it: how a worker ended, and that their time is nearly up."""

ANSWER_SECONDS = 15.0
"""For which the driver is knocked at."""

START_SECONDS = 60
"""What a worker has to reach the scheduler."""

TERM_SECONDS = 5.0
"""In which what is at work may end, once the job is cancelled or has to make way."""

STAGGER = 0.1
"""Of its time a pilot may leave earlier, so that they do not all leave together."""


def pilot(folder: Path, driver: str, log: Path, slots: int, until: float | None) -> None:
    """Work for a driver until it ends this pilot, is gone, or the time is nearly up.

    Parameters
    ----------
    folder, driver
        Where the driver has left word, and its token.
    log
        The path of the workers' logs, in whose name ``{pid}`` stands for a process id.
    until
        When to begin no more, in seconds since the epoch.

    Raises
    ------
    LaunchError
        The driver is not there any more.
    """
    silence()
    dask.config.set(OWN)
    asyncio.run(_work(folder, driver, log, slots, until))


async def _work(folder: Path, driver: str, log: Path, slots: int, until: float | None) -> None:
    try:
        address, security = told_address(folder, driver), read_certificates(folder)
    except OSError:
        raise LaunchError("the driver of this pilot has ended: there is nothing to do") from None
    job = job_id()
    options = {
        "host": get_ip(*get_address_host_port(address)),
        "security": security,
        "nthreads": 1,
        "memory_limit": None,
        "death_timeout": START_SECONDS,
        "dashboard": False,
        "worker_class": PrivateWorker,
        "silence_logs": logging.CRITICAL,
        "plugins": (Settle(log),),
    }
    _require_answer(address)
    nannies = [_Nanny(address, name=f"{job}/{number}", **options) for number in range(slots)]
    try:
        await asyncio.gather(*(nanny.start() for nanny in nannies))
    except Exception as error:
        raise LaunchError(f"no worker reaches the driver at {address}: {error}") from error
    ended = asyncio.gather(*(nanny.finished() for nanny in nannies))
    over: set[asyncio.Future[Any]] = {ended, asyncio.ensure_future(_gone(address, security))}
    leaving: asyncio.Future[float | None] = asyncio.ensure_future(_leaving(until))
    await asyncio.wait({*over, leaving}, return_when=asyncio.FIRST_COMPLETED)
    if leaving.done():
        nannies[0].log_event(TOPIC, {"what": LEAVING, "job": job})
        for nanny in nannies:
            nanny.is_leaving = True
        await asyncio.wait(over, timeout=leaving.result(), return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*(nanny.close() for nanny in nannies), return_exceptions=True)


async def _leaving(until: float | None) -> float | None:
    """Wait until it is time to leave; return how long that may take."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[float | None] = loop.create_future()

    def leave(seconds: float | None) -> None:
        if not told.done():
            told.set_result(seconds)

    loop.add_signal_handler(signal.SIGTERM, leave, TERM_SECONDS)
    if until is not None:
        left = max(until - time.time(), 0)
        loop.call_later(left * (1 - STAGGER * random.random()), leave, None)
    return await told


async def _gone(address: str, security: Security) -> None:
    """Wait until the driver is gone."""
    with suppress(OSError):
        comm = await connect(address, **security.get_connection_args("worker"))
        # It has nothing to say here.
        await comm.read()


def _require_answer(address: str) -> None:
    """Check that the driver can be reached: a nanny would try for long, and not say why."""
    try:
        socket.create_connection(get_address_host_port(address), ANSWER_SECONDS).close()
    except OSError as error:
        raise LaunchError(
            f"the driver at {address} cannot be reached ({error.strerror or error}): if it goes "
            'on, name its network that nodes reach, interface = "…" in the site'
        ) from None


def job_id() -> str:
    """Return the id of the batch job around this process, by which the driver knows it."""
    return os.environ.get("SLURM_JOB_ID", str(os.getpid()))


def end_worker(dask_worker: Any = None) -> None:
    """Kill the worker of a nanny, and what its tasks have started; the nanny starts another."""
    kill_group(dask_worker.pid)


class _Nanny(GroupNanny):
    """Tells the driver how its workers ended, as long as they have no other reason to end.

    Attributes
    ----------
    is_leaving
        Whether the time of the pilot is up, or its job cancelled.
    """

    is_leaving = False

    def note_end(self, address: str, how: str) -> None:
        if self.status == Status.running and not self.is_leaving:
            self.log_event(TOPIC, {"what": ENDED, "address": address, "how": how})
