"""The command fake-slurm: what a test does to the cluster."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from fakes import processes, words
from fakes.failures import Failure
from fakes.folder import Folder, write
from fakes.jobs import Element
from fakes.ledger import Ledger
from fakes.scheduling import changing
from fakes.selection import Selection

USAGE = """\
usage: fake-slurm end JOB STATE    end it as OUT_OF_MEMORY, NODE_FAIL, PREEMPTED, …
       fake-slurm vanish JOB       end it, and forget that it ever was
       fake-slurm down [SECONDS]   the controller is down: commands fail, after so many seconds
       fake-slurm up
       fake-slurm stop             end all that runs; nothing starts any more"""
PATIENCE = 10.0
OOM = (
    "Detected 1 oom-kill event(s) in StepId={}.batch. Some of your processes may have been killed "
    "by the cgroup out-of-memory handler."
)
GENTLE = ("PREEMPTED", "CANCELLED", "TIMEOUT")
WHY = {"PREEMPTED": " DUE TO PREEMPTION", "TIMEOUT": " DUE TO TIME LIMIT"}


def main(argv: list[str]) -> int:
    """Do what the command line says."""
    folder = Folder.current()
    match argv:
        case ["end", job, state] if words.state(state):
            _end(folder, job, words.state(state) or "")
        case ["vanish", job]:
            _vanish(folder, job)
        case ["down"] | ["down", _]:
            write(folder.path / "down", "".join(argv[1:]))
        case ["up"]:
            (folder.path / "down").unlink(missing_ok=True)
        case ["stop"]:
            _stop(folder)
        case _:
            raise Failure(USAGE, status=2)
    return 0


def _end(folder: Folder, job: str, state: str) -> None:
    def end(element: Element) -> None:
        why = OOM.format(element.id) if state == "OUT_OF_MEMORY" else WHY.get(state, "")
        element.end(state, why=why, grace=state in GENTLE)

    _to_each(folder, job, end)


def _vanish(folder: Folder, job: str) -> None:
    def vanish(element: Element) -> None:
        if not element.has_ended:
            element.end("CANCELLED", grace=False)
        element.set(vanished=True)

    _to_each(folder, job, vanish)


def _to_each(folder: Folder, job: str, act: Callable[[Element], None]) -> None:
    """Do something to all that a word names, and wait until nothing of it runs."""
    with changing(folder) as ledger:
        found = ledger.find(Selection(job))
        for element in found:
            if not element["completing"]:
                act(element)
    if not found:
        raise Failure(f"fake-slurm: no job {job}")
    names = {(element.job.id, element.key, element["restarts"]) for element in found}
    for element in found:
        processes.send(element["stepd"], signal.SIGUSR1)
    _wait(lambda: not _completing(folder) & names, f"job {job} ends")


def _completing(folder: Folder) -> set[tuple[int, str, int | None]]:
    everyone = [e for job in Ledger(folder).jobs.values() for e in job.elements]
    return {(e.job.id, e.key, e["restarts"]) for e in everyone if e["completing"]}


def _stop(folder: Folder) -> None:
    """End all supervisors, by what is recorded of them, and what is below them."""
    with folder.locked():
        write(folder.path / "stopped", "")
        everyone = [e for job in Ledger(folder).jobs.values() for e in job.elements]
        supervisors = [e["stepd"] for e in everyone if processes.is_alive(e["stepd"])]
    left = [process for one in supervisors for process in processes.below(one[0])]
    for one in supervisors:
        processes.send(one, signal.SIGTERM)
    _wait(lambda: not any(map(processes.is_alive, supervisors)), "the supervisors end", fail=False)
    for process in [*supervisors, *left]:
        processes.send(process, signal.SIGKILL)


def _wait(condition: Callable[[], bool], what: str, *, fail: bool = True) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            if fail:
                raise Failure(f"fake-slurm: waited in vain: {what}")
            return
        time.sleep(0.01)
