"""Processes on this machine, one task at a time in each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.util import get_temp_dir
from pathlib import Path
from threading import Thread
from typing import Any

from hpckit.processes import die_with_pipe, ending
from hpckit.run.engines import Engine, Workplace, own_log
from hpckit.run.logs import capture_descriptors, capture_task_output

GRACE_SECONDS = 2.0
"""What workers get to end by themselves before they are killed."""

SOCKET_FOLDER = "/tmp"
LONGEST_FOLDER = 75
"""Bytes: a socket's path has 107 at most (unix(7)), and multiprocessing appends 32."""


class _Workers(ForkServerContext):
    """Starts processes from a fork server, and remembers them.

    The fork server is a clean process: forking the driver would copy the locks of threads that
    numerical libraries have started in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: list[ForkServerProcess] = []

    def Process(self, *args: Any, **options: Any) -> ForkServerProcess:  # type: ignore[override]
        """Make a process, as multiprocessing's contexts do."""
        process = ForkServerProcess(*args, **options)
        self.made.append(process)
        return process


class ProcessesEngine(ProcessPoolExecutor, Engine):
    """A pool of worker processes."""

    def __init__(self, place: Workplace) -> None:
        self.workers = place.workers
        _place_sockets()
        self._context = _Workers()
        self._context.set_forkserver_preload(["hpckit.run.batch"])
        super().__init__(
            max_workers=place.workers,
            mp_context=self._context,
            initializer=_begin,
            initargs=(place.log,),
        )

    def submit(self, *args: Any, **options: Any) -> Future[Any]:
        """Hand in a call, as `concurrent.futures` has it."""
        made = len(self._context.made)
        try:
            future = super().submit(*args, **options)
            if len(self._context.made) > made:
                self._watch_new()
            return future
        except OSError as error:
            # The pool starts a worker here, and may close its pipes meanwhile over another's death.
            if self._broken:
                raise BrokenProcessPool(str(error)) from error
            raise

    def _watch_new(self) -> None:
        """Have the pool's thread look at its processes again.

        The pool wakes it before it starts a new one, whose death it would then not see as long
        as nothing else happens.
        """
        with self._shutdown_lock:
            wakeup = self._executor_manager_thread_wakeup
            if wakeup is not None and not self._broken:
                wakeup.wakeup()

    def close(self) -> None:
        """End the workers; one that a task's thread keeps alive is killed."""
        if not self._has_ended(GRACE_SECONDS):
            self.kill()
        else:
            _reap_server()

    def kill(self) -> None:
        """Kill all workers, and what their tasks have started."""
        self._kill_groups()
        self._has_ended(GRACE_SECONDS)

    def death(self) -> str:
        """Say how a worker died, from its exit status."""
        self.close()
        self._kill_groups()
        codes = [process.exitcode for process in self._context.made if process.pid is not None]
        # The pool ends the others with SIGTERM, so another status is the first one's.
        codes.sort(key=lambda code: (code is None, code == -signal.SIGTERM))
        if not codes or codes[0] is None:
            return super().death()
        return f"the worker process {ending(codes[0])}"

    def _kill_groups(self) -> None:
        for process in self._context.made:
            if process.pid is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                # It may not have made a group yet.
                process.kill()

    def _has_ended(self, seconds: float) -> bool:
        """Wait for the pool's own thread, which alone may ask for exit statuses.

        The status of a fork server's child can be read once: of two threads that read it at
        the same time one gets a wrong number.
        """
        shutdown = Thread(target=self.shutdown, kwargs={"cancel_futures": True}, daemon=True)
        shutdown.start()
        shutdown.join(seconds)
        return not shutdown.is_alive()


def _reap_server() -> None:
    """End the fork server and wait for it: its workers' CPU time then counts as this process's.

    Schedulers, time(1) and the like add up only those that were waited for; the library itself
    leaves the server behind.
    """
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def _place_sockets() -> None:
    """Have multiprocessing make its folder for sockets, mode 0700, where paths are short."""
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
        tempfile.tempdir = SOCKET_FOLDER
    try:
        get_temp_dir()
    finally:
        tempfile.tempdir = before


def _begin(path: Path) -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    # What its tasks start is to end with it.
    os.setpgrp()
    # Its fork server would outlive it: each worker holds the pipe on which that waits.
    die_with_pipe(driver.sentinel)
    # Ctrl-C reaches the whole process group; the driver alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = own_log(path)
    capture_descriptors(log)
    capture_task_output(log)
