"""Processes on this machine, one task at a time in each."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from hpckit.processes import die_with_parent
from hpckit.run.engines import Engine
from hpckit.run.logs import capture_descriptors, capture_task_output
from hpckit.store.logs import BoundedLog
from hpckit.store.rundir import RunDir


class ProcessesEngine(ProcessPoolExecutor, Engine):
    """A pool of worker processes.

    They come from a fork server, which is a clean process: forking the driver would copy the
    locks of threads that numerical libraries have started in it.
    """

    def __init__(self, workers: int, run: Path) -> None:
        self.workers = workers
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["hpckit.run.batch"])
        super().__init__(
            max_workers=workers, mp_context=context, initializer=_begin, initargs=(run,)
        )

    def kill(self) -> None:
        """End all workers."""
        for process in multiprocessing.active_children():
            process.kill()
        self.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.join()


def _begin(run: Path) -> None:
    die_with_parent()
    # Ctrl-C reaches the whole process group; the driver alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = BoundedLog(RunDir(run).log(f"worker-{os.getpid()}"))
    capture_descriptors(log)
    capture_task_output(log)
