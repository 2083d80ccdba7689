"""Runs the batch script of one element: `stepd JOB KEY`, as slurmstepd does."""

from __future__ import annotations

import ctypes
import os
import signal
import time

from fakes import processes
from fakes.batch import Script
from fakes.folder import Folder
from fakes.jobs import Element, Job
from fakes.scheduling import changing
from fakes.words import MAY_COME_BACK

PR_SET_CHILD_SUBREAPER = 36
WAKE = {signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM}
PATIENCE = 10.0


def main(argv: list[str]) -> int:
    """Run an element to its end."""
    # What its processes leave behind stays below us.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.chdir("/")
    return Supervisor(Folder.current(), int(argv[0]), argv[1]).run()


class Supervisor:
    """Starts a script, ends it when it must, and notes how it ended."""

    def __init__(self, folder: Folder, job: int, key: str) -> None:
        self.folder, self.job, self.key = folder, job, key
        self.status: int | None = None
        self.cpu = [0.0, 0.0]
        self.rss = 0
        self.end_at: float | None = None
        self.warn_at: float | None = None
        self.kill_at: float | None = None

    def run(self) -> int:
        """Run it, unless whoever started us died before noting so."""
        with self.folder.locked():
            element = self._element()
            if element["stepd"] != processes.record(os.getpid()):
                return 1
        self.script = Script(self.folder, element)
        self._set_alarms(element.job)
        self.status = self.script.failure
        if self.status is None:
            self._start()
        while self.status is None:
            self._watch()
        self._kill_all()
        self._finish()
        return 0

    def _element(self) -> Element:
        return Job.read(self.folder, self.job).element(self.key)

    def _set_alarms(self, job: Job) -> None:
        """Note when the time limit and its warning are due, on our clock."""
        if job.data["limit"] is None:
            return
        minutes = float(job.data["minute"]) / 60
        now = time.monotonic()
        self.end_at = now + job.data["limit"] * minutes
        if job.data["warning"]:
            self.warning, seconds = job.data["warning"]
            self.warn_at = max(now, self.end_at - seconds * minutes)

    def _start(self) -> None:
        self.shell = self.script.start()
        with changing(self.folder) as ledger:
            element = ledger.jobs[self.job].element(self.key)
            element.set(shell=processes.record(self.shell))

    def _watch(self) -> None:
        """Wait for the next thing to happen, and see to it."""
        element = self._element()
        now = time.monotonic()
        if element["completing"] and self.kill_at is None:
            self._wind_up(element)
        elif self.kill_at is not None and self.kill_at <= now:
            self._kill_all()
        elif self.end_at is not None and self.end_at <= now and self.kill_at is None:
            self._time_is_up()
        elif self.warn_at is not None and self.warn_at <= now:
            self.warn_at = None
            self.script.signal(self.warning)
        else:
            self._sleep(now)
        self._reap()

    def _sleep(self, now: float) -> None:
        ends = (self.kill_at,) if self.kill_at is not None else (self.end_at, self.warn_at)
        left = [max(moment - now, 0.0) for moment in ends if moment is not None]
        found = signal.sigtimedwait(WAKE, min(left)) if left else signal.sigwaitinfo(WAKE)
        if found is not None and found.si_signo == signal.SIGTERM:
            self._kill_all()
            os._exit(1)

    def _time_is_up(self) -> None:
        with changing(self.folder) as ledger:
            element = ledger.jobs[self.job].element(self.key)
            if element.state == "RUNNING":
                element.end("TIMEOUT", why=" DUE TO TIME LIMIT")

    def _wind_up(self, element: Element) -> None:
        """Ask the script to end, and give it some time."""
        self.kill_at = time.monotonic()
        if not element["grace"]:
            if element["why"]:
                self.script.say(element["why"])
            return
        self.kill_at += self.folder.number("kill_wait")
        self.script.signal(signal.SIGCONT)
        self.script.say_cancelled(element["why"])
        self.script.signal(signal.SIGTERM)

    def _kill_all(self) -> None:
        """Kill all that is below us, and what it starts meanwhile."""
        end = time.monotonic() + PATIENCE
        while (left := processes.below(os.getpid())) and time.monotonic() < end:
            for process in left:
                processes.send(process, signal.SIGKILL)
            self._reap()
            time.sleep(0.002)
        self._reap()

    def _reap(self) -> None:
        """Note which of our processes have ended, and what they took."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.cpu = [self.cpu[0] + usage.ru_utime, self.cpu[1] + usage.ru_stime]
            self.rss = max(self.rss, usage.ru_maxrss)
            if pid == self.shell:
                self.status = status

    def _finish(self) -> None:
        """Note how it ended; this starts what waits for it."""
        status = self.status or 0
        exits = {
            "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "cpu": self.cpu,
            "rss": self.rss,
        }
        with changing(self.folder) as ledger:
            element = ledger.jobs[self.job].element(self.key)
            element.has_stopped(exits)
            allowed = element.state == "REQUEUED" or element.job.may_come_back()
            if element.state in MAY_COME_BACK and allowed and not element["vanished"]:
                element.come_back()
