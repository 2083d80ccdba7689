"""The ranks of the engine `mpi`: rank 0 hands the driver's calls to the others.

Started by mpiexec as ``python -m hpckit.run.engines.mpi_ranks SOCKET LOG``. Calls and answers
pass through rank 0 as they are, pickled once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket
from typing import Any

from hpckit.processes import end_with_parent
from hpckit.run.engines import own_log
from hpckit.run.engines.calls import called
from hpckit.run.engines.frames import CALL, FAILURE, RESULT, Message, receive, send
from hpckit.run.logs import capture_descriptors, capture_task_output


def main(path: str, log: str) -> None:
    """Take part in the pool until the driver closes the socket."""
    end_with_parent()
    # Ctrl-C reaches the whole process group; the driver alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from mpi4py import MPI
    from mpi4py.futures import MPICommExecutor

    if MPI.COMM_WORLD.Get_rank():
        logged = own_log(Path(log))
        capture_descriptors(logged)
        capture_task_output(logged)
        # It imports NumPy and the like once, before the first call.
        import hpckit.run.batch  # noqa: F401
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as pool:
        if pool is not None:
            Relay(pool, path).run()


class Relay:
    """Passes calls from the driver's socket to a pool, and the answers back."""

    def __init__(self, pool: Any, path: str) -> None:
        self._pool = pool
        self._sending = threading.Lock()
        self._channel = socket(AF_UNIX, SOCK_STREAM)
        self._channel.connect(path)

    def run(self) -> None:
        """Serve until the driver ends it."""
        while (message := receive(self._channel)) is not None:
            if message.kind != CALL:
                return
            future = self._pool.submit(called, message.payload)
            future.add_done_callback(self._answerer(message.number))
        # Nobody waits for what the other ranks are at.
        from mpi4py import MPI

        MPI.COMM_WORLD.Abort(1)

    def _answerer(self, number: int) -> Callable[[Future[tuple[bool, bytes]]], None]:
        def answer(future: Future[tuple[bool, bytes]]) -> None:
            good, payload = future.result()
            self._send(Message(RESULT if good else FAILURE, number, payload))

        return answer

    def _send(self, message: Message) -> None:
        with self._sending:
            try:
                send(self._channel, message)
            except OSError:
                os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
