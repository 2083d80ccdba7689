"""Pilots in Slurm's queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from hpckit.jobstates import JobState
from hpckit.store.atomic import write_bytes
from hpckit.store.rundir import RunDir
from hpckit.submit.accounting import in_queue, tags, tags_question
from hpckit.submit.client import ask
from hpckit.submit.slurm import Slurm

PILOT = "pilot-"


@dataclass
class SlurmPilots:
    """Submits the pilots of one session of a run, and asks after them.

    Attributes
    ----------
    script
        The text of the batch script of each.
    driver
        Its token: a driver that went back to the queue is of the same session, and numbers its
        pilots from one again.
    """

    run: RunDir
    script: str
    session: int
    driver: str

    def __post_init__(self) -> None:
        self._numbers = count(1)

    @property
    def path(self) -> Path:
        """The batch script, in the run's folder, which nobody else reads."""
        return self.run.pilot_script

    def open(self) -> None:
        """Write the batch script, and end the pilots that earlier drivers have left.

        For the one driver of the run alone.

        Raises
        ------
        StoreError
            The script cannot be written.
        LaunchError
            Slurm does not answer.
        """
        write_bytes(self.path, self.script.encode())
        self.sweep()

    def submit(self) -> str:
        """Submit one more, once; return the job's id.

        Raises
        ------
        UsageError
            It was refused.
        LaunchError
            Slurm does not answer.
        """
        own = f"{self.session}:{PILOT}{self.driver}-{next(self._numbers)}"
        return Slurm().submit(self.path, [], [], f"{tag_of(self.run)}{own}")

    def sweep(self) -> None:
        """End all pilots of the run that are in the queue, heard of or not.

        Raises
        ------
        LaunchError
            Slurm does not answer.
        """
        end_pilots(self.run)

    def cancel(self, ids: Sequence[str]) -> None:
        """End pilots, queued or running.

        Raises
        ------
        LaunchError
            Slurm does not answer.
        """
        Slurm().cancel(ids)

    def states(self, ids: Iterable[str]) -> dict[str, JobState]:
        """Return how pilots stand; of those that the queue has forgotten nobody knows.

        Raises
        ------
        LaunchError
            Slurm does not answer.
        """
        asked = list(ids)
        known = in_queue(asked)
        return {job: known[job].state if job in known else JobState.UNKNOWN for job in asked}

    def last_words(self, job: str) -> str:
        """Return the last line that a pilot printed, or nothing."""
        with suppress(OSError):
            lines = self.run.log(f"pilot-{job}").read_text(errors="replace").splitlines()
            return next((line for line in reversed(lines) if line.strip()), "")
        return ""


def end_pilots(run: RunDir) -> None:
    """End all pilots of a run that are in the queue, whichever session they are of.

    Raises
    ------
    LaunchError
        Slurm does not answer.
    """
    tagged = tags(ask(tags_question()).splitlines()).items()
    mine = [job for job, tag in tagged if tag.startswith(tag_of(run)) and f":{PILOT}" in tag]
    if mine:
        Slurm().cancel(mine)


def tag_of(run: RunDir) -> str:
    """Return how the comments of all jobs of a run begin."""
    return f"hpckit:{run.id}:"


def addresses_of_nodes() -> list[str]:
    """Return the addresses of the cluster's nodes, as Slurm knows them.

    Raises
    ------
    UsageError, LaunchError
        Slurm is not there, or does not answer.
    """
    return ask(["sinfo", "-h", "-N", "-o", "%o"]).split()
