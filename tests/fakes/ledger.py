"""All jobs of the state folder."""

from __future__ import annotations

from collections.abc import Iterator

from fakes.folder import Folder
from fakes.jobs import Element, Job
from fakes.selection import Selection


class Ledger:
    """All jobs as they stand now; who changes them holds the lock, see `fakes.scheduling`."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        numbers = sorted(int(path.stem) for path in folder.jobs.glob("[0-9]*.json"))
        self.jobs = {number: Job.read(folder, number) for number in numbers}

    def add(self, job: Job) -> None:
        """Queue a job."""
        job.is_changed = True
        self.jobs[job.id] = job

    def save(self) -> None:
        """Write what has changed."""
        for job in self.jobs.values():
            job.save(self.folder)

    def elements(self) -> Iterator[Element]:
        """Return all that have not vanished."""
        return (e for job in self.jobs.values() for e in job.elements if e.is_visible)

    def find(self, wanted: Selection) -> list[Element]:
        """Return the elements that a word of a command line names."""
        return [element for element in self.elements() if wanted.names(element)]

    def recent(self, now: float) -> Iterator[Element]:
        """Return those that the controller still knows."""
        age = self.folder.number("min_job_age")
        return (e for e in self.elements() if not e.has_ended or e["end"] + age > now)
