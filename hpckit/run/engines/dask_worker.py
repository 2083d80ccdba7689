"""What runs in a dask worker: a call at a time, its prints on their way to the run's log."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import psutil
from distributed import Worker, WorkerPlugin

from hpckit.processes import die_with_pipe
from hpckit.run.engines import own_log
from hpckit.run.logs import capture_descriptors, capture_task_output
from hpckit.store.logs import BoundedLog

LOGGERS = frozenset({"distributed", "dask", "tornado", "bokeh", "asyncio"})
REPLY_SECONDS = 0.1
"""What a worker that is to end gets to say that it will."""

WITHDRAWN = b""
"""The answer to a call that was given to another worker before it began."""

_turn = threading.Lock()
_deciding = threading.Lock()
# A ticket is asked about only while its call is in flight, so that a few are enough.
_begun: deque[str] = deque(maxlen=100)
_withdrawn: deque[str] = deque(maxlen=100)


def work(ticket: str, log: Path | None, call: bytes) -> bytes:
    """Do a call, unless it has been withdrawn.

    One at a time, whatever the worker's number of threads: tasks need not be safe to run in
    threads, and a line that C code prints has to be known as one task's.

    Parameters
    ----------
    log
        The path of the run's logs, for a worker that works for others too.
    call
        The pickle of a function and its arguments.

    Returns
    -------
    bytes
        `WITHDRAWN`, or the pickle of whether it went well and of what was returned or raised.
    """
    with _turn:
        if not _begin(ticket):
            return WITHDRAWN
        with _logged(log):
            try:
                fn, args, kwargs = pickle.loads(call)
                return pickle.dumps((True, fn(*args, **kwargs)), protocol=5)
            except Exception as error:
                return pickle.dumps((False, error), protocol=5)


def withdraw(ticket: str) -> bool:
    """Take a call back; tell whether it had not begun, and now never will here."""
    with _deciding:
        if ticket in _begun:
            return False
        _withdrawn.append(ticket)
        return True


def end_process(only_if_restarted: bool, dask_worker: Any = None) -> None:
    """End this worker process and all that its tasks have started, once it has replied."""
    if dask_worker.nanny or not only_if_restarted:
        asyncio.get_running_loop().call_later(REPLY_SECONDS, _end_process)


def silence() -> None:
    """Take dask's own messages from the terminal, whatever its configuration says."""
    warnings.filterwarnings("ignore", module="distributed")
    for name in _dasks_loggers():
        logger = logging.getLogger(name)
        logger.propagate = name not in LOGGERS
        for handler in logger.handlers[:]:
            if isinstance(handler, logging.StreamHandler):
                logger.removeHandler(handler)
        if name in LOGGERS:
            logger.addHandler(logging.NullHandler())


class Settle(WorkerPlugin):  # type: ignore[misc]
    """Makes a fresh worker process the driver's own: it logs to the run and dies with the driver.

    Parameters
    ----------
    log
        The path of the run's logs.
    """

    name = "hpckit"

    def __init__(self, log: Path) -> None:
        self.log = log

    def setup(self, worker: Worker) -> None:
        """Settle, before the scheduler hears of the worker."""
        driver = multiprocessing.parent_process()
        assert driver is not None
        # What its tasks start is to end with it.
        os.setpgrp()
        die_with_pipe(driver.sentinel)
        # Ctrl-C reaches the whole process group; the driver alone decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        _be_deaf_to_termination()
        silence()
        log = own_log(self.log)
        capture_descriptors(log)
        capture_task_output(log)


def _be_deaf_to_termination() -> None:
    """Leave SIGTERM to the pilot and the driver, who may let a task end.

    Slurm sends it to every process of a job at once, unless it tracks them by cgroups. What tasks
    start hears it as ever: a handler, unlike a signal that is ignored, does not outlive exec(2).
    """
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _dasks_loggers() -> set[str]:
    known = logging.root.manager.loggerDict
    return {*LOGGERS, *(name for name in known if name.partition(".")[0] in LOGGERS)}


def _begin(ticket: str) -> bool:
    with _deciding:
        if ticket in _withdrawn:
            return False
        _begun.append(ticket)
        return True


def _end_process() -> None:
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)


class _Capture:
    """Sends what this process prints to the log of a run, while it works for that run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        before = [os.dup(descriptor) for descriptor in (1, 2)]
        _keep_messages(os.dup(2))
        log = _log_of_host(path)
        capture_descriptors(log)
        capture_task_output(log)
        self._pipe = os.dup(1)
        self._before = before
        self.end()
        # The thread behind the pipe ends once nobody can write to it.
        self.close = Finalize(self, _close_all, (self._pipe, *before), exitpriority=101)

    def begin(self) -> None:
        for descriptor in (1, 2):
            os.dup2(self._pipe, descriptor)

    def end(self) -> None:
        for descriptor, before in zip((1, 2), self._before, strict=True):
            os.dup2(before, descriptor)


_capture: _Capture | None = None


@contextmanager
def _logged(log: Path | None) -> Iterator[None]:
    global _capture
    if log is None:
        yield
        return
    if _capture is None or _capture.path != log:
        if _capture is not None:
            _capture.close()
        _capture = _Capture(log)
    _capture.begin()
    try:
        yield
    finally:
        _capture.end()


def _log_of_host(path: Path) -> BoundedLog:
    """Return this process's log among those of other machines."""
    host = socket.gethostname()
    return own_log(path.with_name(path.name.replace("{pid}", f"{host}-{{pid}}")))


def _keep_messages(descriptor: int) -> None:
    """Have dask's own messages go where they went before prints are captured."""
    stream = open(descriptor, "w", buffering=1)  # noqa: SIM115
    for name in _dasks_loggers():
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.__stderr__:
                handler.setStream(stream)


def _close_all(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
