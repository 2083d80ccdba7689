"""Threads of the driver: for tasks that wait, or whose time goes by outside the interpreter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hpckit.run.engines import Engine, Workplace, own_log
from hpckit.run.logs import capture_task_output


class ThreadsEngine(ThreadPoolExecutor, Engine):
    """A pool of threads."""

    ends_tasks = False

    def __init__(self, place: Workplace) -> None:
        self.workers = place.workers
        capture_task_output(own_log(place.log))
        super().__init__(max_workers=place.workers, thread_name_prefix="hpckit")

    def kill(self) -> None:
        """Drop what waits; a thread cannot be ended, its task goes on until the driver exits."""
        self.shutdown(wait=False, cancel_futures=True)
