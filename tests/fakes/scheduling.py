"""Starts what may start. There is no daemon: whoever changes the jobs looks for what may now."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fakes import dependencies, hosts, processes
from fakes.folder import Folder
from fakes.jobs import Element, Job
from fakes.ledger import Ledger


@contextmanager
def changing(folder: Folder) -> Iterator[Ledger]:
    """Change jobs under the lock; then start what may, and save. Nothing is saved on an error."""
    with folder.locked():
        ledger = Ledger(folder)
        yield ledger
        if not folder.has("stopped"):
            _Round(ledger).start_what_may()
        ledger.save()


class _Round:
    """One look at the queue."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.folder = ledger, ledger.folder
        occupying = [element for element in ledger.elements() if element.occupies]
        self.free = int(self.folder.number("cpus")) - len(occupying)
        self.running = Counter(element.job.id for element in occupying)
        self.busy = Counter(n for e in occupying for n in hosts.expand(e["nodes"] or ""))
        self.is_somebody_waiting = False

    def start_what_may(self) -> None:
        """Go through all that is pending, in its order."""
        for element in list(self.ledger.elements()):
            if element.state == "PENDING" and not element["completing"]:
                self._consider(element)

    def _consider(self, element: Element) -> None:
        reason = self._reason(element)
        if reason == "DependencyNeverSatisfied" and _is_killed_then(element.job):
            element.end("CANCELLED")
        elif reason is None:
            self._start(element)
        elif element["reason"] != reason:
            element.set(reason=reason)

    def _reason(self, element: Element) -> str | None:
        """Tell in Slurm's words why an element cannot start."""
        job = element.job
        if element["held"] or job.data["unfit"]:
            return element["held"] or job.data["unfit"]
        stands = dependencies.standing(self.ledger, element)
        if stands != dependencies.MET:
            never = stands == dependencies.NEVER
            return "DependencyNeverSatisfied" if never else "Dependency"
        if 0 < job.data["throttle"] <= self.running[job.id]:
            return "JobArrayTaskLimit"
        if self.free > 0:
            return None
        first, self.is_somebody_waiting = not self.is_somebody_waiting, True
        return "Resources" if first else "Priority"

    def _start(self, element: Element) -> None:
        job = element.job
        nodes = sorted(job.data["nodes"], key=lambda node: self.busy[node])
        chosen = sorted(nodes[: job.data["node_count"]], key=job.data["nodes"].index)
        element.split(self.folder)
        log = self.folder.path / "stepd.log"
        stepd = processes.supervise(self.folder.path, job.id, element.key, log)
        element.set(state="RUNNING", start=int(time.time()), reason="None")
        element.set(nodes=hosts.show(chosen), stepd=stepd)
        self.free -= 1
        self.running[job.id] += 1
        self.busy.update(chosen)


def _is_killed_then(job: Job) -> bool:
    return job.data["options"].get("kill-on-invalid-dep") == "yes"
