"""What executes the batches of a farm: each engine is a concurrent.futures.Executor.

Others than hpckit's own come from packages with an entry point in the group `hpckit.engines`.

How a call can end, beside its result: with `WorkerDied` if the worker at it died and the engine
goes on; with another `BrokenExecutor` if the engine is at its end, and all that was in flight
with it; with a `LaunchError` if no worker can be had. A call that nobody has begun is none of
the driver's business: the engine gives it to another worker.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

from hpckit.errors import UsageError
from hpckit.run.engines.pilots import Backlog, Pilots
from hpckit.run.sizing import TARGET_SECONDS
from hpckit.spec.job import Job
from hpckit.store.logs import BoundedLog
from hpckit.store.progress import Muster
from hpckit.store.provenance import usable_cores

DEFAULT = "processes"
ASYNC_DEFAULT = "asyncio"
ELASTIC = "dask"
"""The one whose workers may be batch jobs of their own."""

GROUP = "hpckit.engines"

AHEAD = 2
"""Batches in flight a worker: one that it works on, one that waits for it."""

ENGINES = {
    "serial": "hpckit.run.engines.serial:SerialEngine",
    "threads": "hpckit.run.engines.threads:ThreadsEngine",
    "processes": "hpckit.run.engines.processes:ProcessesEngine",
    "asyncio": "hpckit.run.engines.event_loop:AsyncioEngine",
    "mpi": "hpckit.run.engines.mpi:MPIEngine",
    "dask": "hpckit.run.engines.dask:DaskEngine",
    "celery": "hpckit.run.engines.celery:CeleryEngine",
}


@dataclass(frozen=True)
class Workplace:
    """Where an engine works.

    Attributes
    ----------
    workers
        How many tasks at a time.
    log
        The path of the workers' logs, in whose name ``{pid}`` stands for a process id.
    address
        Of a scheduler or a broker that is there already.
    launcher
        The line that starts ranks, one more than the workers, up to their program.
    pilots
        How workers are had from batch jobs.
    """

    workers: int
    log: Path
    address: str | None = None
    launcher: tuple[str, ...] = ()
    pilots: Pilots | None = None


class WorkerDied(BrokenExecutor):
    """The worker at a call died; the engine goes on without it, or with another.

    Attributes
    ----------
    is_proven
        Whether the engine itself has tried the call so often that once more would prove nothing.
    """

    def __init__(
        self, reason: str, peak_bytes: int | None = None, *, is_proven: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.peak_bytes = peak_bytes
        self.is_proven = is_proven


class Engine(Executor):
    """An executor whose workers can be ended at once; made from a `Workplace`.

    Attributes
    ----------
    workers
        How many calls it works on at a time; it may change.
    look_seconds
        After how long it may have room though no call has ended.
    width
        How many tasks of a call's batch it works on at a time.
    needs
        The extra of hpckit that brings the packages it imports.
    has_address
        Whether `Workplace.address` means something to it.
    has_pilots
        Whether `Workplace.pilots` means something to it.
    needs_launcher
        Whether `Workplace.launcher` starts its workers.
    takes_async
        Whether it can call an ``async def``.
    batch_seconds
        How long a batch had better take, for what it costs beside its tasks.
    ends_tasks
        Whether it can end a task that takes too long.
    """

    workers: int
    width: int = 1
    look_seconds: float = math.inf
    needs: ClassVar[str] = ""
    has_address: ClassVar[bool] = False
    has_pilots: ClassVar[bool] = False
    needs_launcher: ClassVar[bool] = False
    takes_async: ClassVar[bool] = False
    batch_seconds: ClassVar[float] = TARGET_SECONDS
    ends_tasks: ClassVar[bool] = True

    def __init__(self, place: Workplace) -> None:
        self.workers = place.workers

    @classmethod
    def fitting_workers(cls, asked: int | None, cpus: int) -> int:
        """Return how many workers there are to be.

        Parameters
        ----------
        asked
            What the user said.
        cpus
            That a task uses.
        """
        return asked or max(usable_cores() // cpus, 1)

    @classmethod
    def can_end_tasks(cls, job: Job) -> bool:
        """Tell whether it can end a task of this job that takes too long."""
        return cls.ends_tasks

    def has_room(self, flying: int) -> bool:
        """Tell whether it should have one more call, `flying` being in flight."""
        return flying < AHEAD * self.workers

    def muster(self) -> Muster | None:
        """Return how many workers there are, for an engine whose workers come and go."""
        return None

    def expect(self, backlog: Backlog) -> None:
        """Hear what is left of the farm, for an engine that can have more workers or fewer."""

    def close(self) -> None:
        """End the workers, which have nothing more to do."""
        self.shutdown()

    def kill(self) -> None:
        """End the workers now; what they were at is lost."""
        raise NotImplementedError(type(self).__name__)

    def finish(self) -> None:
        """Leave nothing behind elsewhere, after `close` or `kill`; it may take long.

        What came back is sealed by then.
        """

    def waiting(self, calls: Collection[Future[Any]]) -> Iterable[Future[Any]]:
        """Return those of some calls that are known to wait for a worker."""
        return ()

    def abandon(self, call: Future[Any]) -> None:
        """End the worker at a call that takes too long; the call ends as if it had died."""
        self.kill()

    def death(self) -> str:
        """End the workers, one of which has died and the engine with it; say how it died."""
        return "the worker process died"


def engine_class(name: str) -> type[Engine]:
    """Return the class of the engine called `name`.

    Raises
    ------
    UsageError
        There is no such engine, or the packages that it needs are not there.
    """
    path = ENGINES.get(name) or _plugins().get(name)
    if path is None:
        raise UsageError(f"--engine {name!r}: there are {', '.join([*ENGINES, *_plugins()])}")
    module, _, attribute = path.partition(":")
    try:
        found: type[Engine] = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "hpckit":
            raise
        raise UsageError(
            f"--engine {name} needs the package {error.name}: pip install 'hpckit[{name}]'"
        ) from None
    return found


def default_engine(job: Job) -> str:
    """Return the engine that a job is for if nobody says otherwise."""
    return ASYNC_DEFAULT if job.is_async else DEFAULT


def _plugins() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=GROUP)}


def own_log(path: Path) -> BoundedLog:
    """Return the log of this process, from the path that an engine was given."""
    return BoundedLog(path.with_name(path.name.replace("{pid}", str(os.getpid()))))
