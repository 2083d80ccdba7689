"""The processes of a worker: those that are at a call, and those that wait for one."""

from __future__ import annotations

import os
import threading

from hpckit.errors import LaunchError
from hpckit.run.celery.runner import Runner
from hpckit.run.celery.wire import Call
from hpckit.store.rundir import RunDir


class Runners:
    """Keeps processes for the drivers whose calls they have loaded.

    Parameters
    ----------
    spare
        How many may wait for a call; beyond that, the one that has waited longest ends.
    """

    def __init__(self, spare: int) -> None:
        self._spare = spare
        # A signal handler may come in between.
        self._lock = threading.RLock()
        self._idle: list[Runner] = []
        self._busy: set[Runner] = set()

    def take(self, call: Call) -> Runner:
        """Return a process for a call's driver, a new one if none waits.

        Raises
        ------
        LaunchError
            None can be started.
        """
        with self._lock:
            waiting = [runner for runner in self._idle if runner.session == call.session]
            if waiting:
                self._idle.remove(waiting[-1])
                self._busy.add(waiting[-1])
                return waiting[-1]
        log = RunDir(call.spec.run).log(f"worker-{os.uname().nodename}-{{pid}}")
        try:
            runner = Runner(call.session, log, call.directory, dict(call.threads))
        except OSError as error:
            raise LaunchError(f"no process can be started: {error.strerror}") from None
        with self._lock:
            self._busy.add(runner)
        return runner

    def give_back(self, runner: Runner) -> None:
        """Let a process wait for its driver's next call."""
        with self._lock:
            self._busy.discard(runner)
            self._idle.append(runner)
            surplus = self._idle.pop(0) if len(self._idle) > self._spare else None
        if surplus is not None:
            surplus.end()

    def forget(self, runner: Runner) -> None:
        """Take note that a process has died."""
        with self._lock:
            self._busy.discard(runner)

    @property
    def sessions(self) -> set[str]:
        """The drivers that there are processes for."""
        with self._lock:
            return {runner.session for runner in (*self._idle, *self._busy)}

    def end(self, session: str) -> None:
        """End the processes of a driver that is gone."""
        with self._lock:
            idle = [runner for runner in self._idle if runner.session == session]
            busy = [runner for runner in self._busy if runner.session == session]
            self._idle = [runner for runner in self._idle if runner not in idle]
        for runner in busy:
            runner.kill()
        for runner in idle:
            runner.end()

    def end_idle(self) -> None:
        """End the processes that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for runner in idle:
            runner.end()

    def kill(self) -> None:
        """End all processes now."""
        with self._lock:
            runners = [*self._idle, *self._busy]
        for runner in runners:
            runner.kill()
