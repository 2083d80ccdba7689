"""Pilots: batch jobs that hold workers for a driver, and how many workers there should be."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpckit.jobstates import JobState
from hpckit.variables import BEGAN

WORTH_SECONDS = 10.0
"""Of work that there must be for each worker: twice what it takes to start one."""

LEAST_END, END_SHARE = 60.0, 0.1
"""Of its walltime a pilot begins nothing in the last tenth, or the last minute if that is more."""


class PilotQueue(Protocol):
    """Where pilots are submitted; its methods wait for the scheduler's answer."""

    @property
    def path(self) -> Path:
        """The batch script of each."""
        ...

    def open(self) -> None:
        """Write the batch script, and end the pilots that earlier drivers have left.

        For the one driver of the run alone.

        Raises
        ------
        HpckitError
            The script cannot be written, or the scheduler does not answer.
        """
        ...

    def submit(self) -> str:
        """Submit one more, and return the job's id.

        Raises
        ------
        HpckitError
            It was refused, or the scheduler does not answer.
        """
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """End pilots, queued or running."""
        ...

    def sweep(self) -> None:
        """End all pilots of the run that are in the queue."""
        ...

    def states(self, ids: Iterable[str]) -> dict[str, JobState]:
        """Return how pilots stand, by id; what is in the queue no more has ended.

        Raises
        ------
        LaunchError
            The scheduler does not answer.
        """
        ...

    def last_words(self, job: str) -> str:
        """Return the last line that a pilot printed, or nothing."""
        ...


@dataclass(frozen=True)
class Pilots:
    """How a driver gets its workers from batch jobs.

    Attributes
    ----------
    folder
        Through which pilots find the driver.
    driver
        Its token: pilots that another one has left do not find it.
    host
        The address at which nodes reach this machine.
    slots
        Workers in each pilot.
    least, most
        Workers in all.
    """

    queue: PilotQueue
    folder: Path
    driver: str
    host: str
    slots: int
    least: int
    most: int


@dataclass(frozen=True)
class Backlog:
    """What is left of a farm.

    Attributes
    ----------
    tasks
        Not done, those at work included.
    seconds
        That one takes, as far as that is known.
    """

    tasks: int
    seconds: float | None = None


def pilots_wanted(pilots: Pilots, backlog: Backlog) -> int:
    """Return how many pilots there should be for what is left, never more than there may be.

    As long as nobody knows how long tasks take, they are taken to be worth a worker each.
    """
    workers = backlog.tasks
    if backlog.seconds is not None:
        workers = min(workers, math.ceil(workers * backlog.seconds / WORTH_SECONDS))
    wanted = math.ceil(max(workers, pilots.least) / pilots.slots)
    return min(wanted, pilots.most // pilots.slots)


def begins_until(walltime: float | None, variables: Mapping[str, str]) -> float | None:
    """Return until when a pilot begins tasks, by the clock; None where nobody knows its end.

    Parameters
    ----------
    walltime
        That its job asks for, in seconds.
    variables
        Of its job: newer versions of Slurm tell when it will end.
    """
    began = float(variables.get(BEGAN, time.time()))
    if "SLURM_JOB_END_TIME" in variables:
        walltime = float(variables["SLURM_JOB_END_TIME"]) - began
    if walltime is None:
        return None
    return began + walltime - min(max(LEAST_END, walltime * END_SHARE), walltime / 2)
