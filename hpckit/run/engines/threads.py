"""Threads of the driver: for tasks that wait, or whose time goes by outside the interpreter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpckit.run.engines import Engine
from hpckit.run.logs import capture_task_output
from hpckit.store.logs import BoundedLog
from hpckit.store.rundir import RunDir


class ThreadsEngine(ThreadPoolExecutor, Engine):
    """A pool of threads."""

    def __init__(self, workers: int, run: Path) -> None:
        self.workers = workers
        capture_task_output(BoundedLog(RunDir(run).log("driver")))
        super().__init__(max_workers=workers, thread_name_prefix="hpckit")

    def kill(self) -> None:
        """Drop what waits; a thread cannot be ended, its task goes on until the driver exits."""
        self.shutdown(wait=False, cancel_futures=True)
