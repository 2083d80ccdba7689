"""MPI ranks, on this machine or on all nodes of an allocation, as mpi4py.futures has them.

The driver is no rank: the death of one is the end of all, and the driver starts others.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from hpckit.errors import LaunchError
from hpckit.processes import ending, has_not_started, leash
from hpckit.run.engines import Engine, Workplace
from hpckit.run.engines.calls import settle
from hpckit.run.engines.frames import CALL, END, RESULT, Message, receive_async

P = ParamSpec("P")
T = TypeVar("T")

START_SECONDS = 120.0
"""In which rank 0 must have called back."""

GRACE_SECONDS = 3.0
"""What the ranks get to end by themselves before they are killed."""

SAID_LINES = 20
"""Of the end of what mpiexec said are kept."""

VARIABLES = {
    # Rank 0 only passes messages on, so that there is one rank more than cores.
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    # Seconds that an idle rank sleeps between two looks, at most.
    "MPI4PY_FUTURES_BACKOFF": "0.0005",
}


class MPIEngine(Engine):
    """A pool of MPI ranks behind a socket; all but `submit` happens in a thread of its own."""

    needs = "mpi"
    needs_launcher = True

    def __init__(self, place: Workplace) -> None:
        super().__init__(place)
        self._place = place
        self._numbers = count(1)
        self._calls: dict[int, Future[Any]] = {}
        self._unsent: deque[Message] = deque()
        self._writer: asyncio.StreamWriter | None = None
        self._said: deque[str] = deque(maxlen=SAID_LINES)
        self._how = "the ranks have ended"
        self._has_ended = False
        self._process: asyncio.subprocess.Process | None = None
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hpckit-mpi", daemon=True)
        self._thread.start()

    @classmethod
    def fitting_workers(cls, asked: int | None, cpus: int) -> int:
        """Return the tasks of the allocation, if there is one."""
        tasks = os.environ.get("SLURM_NTASKS", "")
        return asked or (int(tasks) if tasks.isdigit() else super().fitting_workers(None, cpus))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand in a call, as `concurrent.futures` has it."""
        payload = pickle.dumps((fn, args, kwargs), pickle.HIGHEST_PROTOCOL)
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._has_ended:
                raise BrokenExecutor(self._how)
            number = next(self._numbers)
            self._calls[number] = future
        self._loop.call_soon_threadsafe(self._send, Message(CALL, number, payload))
        return future

    def close(self) -> None:
        """End the ranks, which have nothing more to do."""
        self._tell_end()
        self._thread.join(GRACE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the ranks now; what they were at is lost."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._terminate)
        self._thread.join(GRACE_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._thread.join(GRACE_SECONDS)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the ranks."""
        self.close()

    def death(self) -> str:
        """Say how the ranks ended."""
        self.kill()
        return self._how

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            self._end(LaunchError(f"the engine mpi failed: {error!r}"))
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        """Start the ranks, and take their answers to the end."""
        folder = Path(tempfile.mkdtemp(prefix="hpckit-", dir=_short_folder()))
        connected: asyncio.Future[asyncio.StreamReader] = self._loop.create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writer = writer
            if not connected.done():
                connected.set_result(reader)

        try:
            server = await asyncio.start_unix_server(accept, folder / "s", limit=1 << 22)
            async with server:
                process = await self._start(folder / "s")
                listening = self._loop.create_task(self._listen(process))
                ended = self._loop.create_task(process.wait())
                both: list[asyncio.Future[Any]] = [connected, ended]
                await asyncio.wait(both, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if connected.done():
                await self._answers(connected.result())
            elif not ended.done():
                self._terminate()
            await self._wait(ended)
            await listening
            self._finish(process.returncode, was_there=connected.done())
        except OSError as error:
            self._end(LaunchError(f"{self._place.launcher[0]}: does not start: {error}"))
        finally:
            if self._writer is not None:
                self._writer.close()
            shutil.rmtree(folder, ignore_errors=True)

    async def _start(self, socket: Path) -> asyncio.subprocess.Process:
        program = [sys.executable, "-m", "hpckit.run.engines.mpi_ranks"]
        self._process = await asyncio.create_subprocess_exec(
            *self._place.launcher,
            *program,
            str(socket),
            str(self._place.log),
            env={**os.environ, **{k: v for k, v in VARIABLES.items() if k not in os.environ}},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=leash(signal.SIGTERM),
            # Ctrl-C is the driver's.
            process_group=0,
        )
        return self._process

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self._said.append(line.decode(errors="replace").rstrip())

    async def _answers(self, reader: asyncio.StreamReader) -> None:
        while self._unsent and self._writer is not None:
            self._writer.writelines(self._unsent.popleft().pieces())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                message = await receive_async(reader)
                call = self._calls.pop(message.number)
                settle(call, message.payload, good=message.kind == RESULT)

    async def _wait(self, ended: asyncio.Task[int]) -> None:
        done, _ = await asyncio.wait({ended}, timeout=GRACE_SECONDS)
        if not done and self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await ended

    def _finish(self, status: int | None, *, was_there: bool) -> None:
        said = "\n".join(line for line in self._said if line.strip())
        died = _rank_death(said)
        if was_there or died is not None or has_not_started(said):
            self._end(BrokenExecutor(died or f"mpiexec {ending(status or 0)}"))
            return
        remedy = (
            "see that mpiexec and mpi4py are of the same MPI, and that rank 0 is on this machine"
        )
        self._end(LaunchError(f"the MPI ranks did not start: {remedy}\n{said}".rstrip()))

    def _end(self, error: Exception) -> None:
        with self._lock:
            self._has_ended = True
            self._how = str(error)
            calls, self._calls = list(self._calls.values()), {}
        for future in calls:
            if not future.done():
                future.set_exception(error)

    def _send(self, message: Message) -> None:
        if self._writer is None:
            self._unsent.append(message)
        else:
            self._writer.writelines(message.pieces())

    def _tell_end(self) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._send, Message(END, 0))

    def _terminate(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()


def _short_folder() -> str | None:
    """Return a folder for a socket, whose path has 107 bytes at most (unix(7))."""
    return None if len(os.fsencode(tempfile.gettempdir())) < 80 else "/tmp"


def _rank_death(said: str) -> str | None:
    """Return how a rank died, in the words of the launchers of Open MPI and MPICH."""
    for number, signum in ((s, s.name) for s in signal.Signals):
        if f"signal {int(number)} " in said or f"signal: {int(number)}" in said.lower():
            return f"an MPI rank was killed by {signum}"
    return None
