"""How jobs of a scheduler stand, in classes that each have their own remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

TIME_IS_UP = 75
"""The exit status of a program that saved its work and stopped before its time was up: that of
a temporary failure in sysexits.h, which asks to be tried again."""


NO_PROGRESS = 76
"""The same, where nothing came of all the time, so that trying again would be in vain."""


class JobState(StrEnum):
    """The class of a scheduler's job, or of an array's element."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    NODE_FAIL = "node_fail"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """It is in the queue no more, and nobody knows how it ended."""

    @property
    def has_ended(self) -> bool:
        """Whether the job is at its end, good or bad."""
        return self not in (JobState.PENDING, JobState.RUNNING)

    @property
    def is_trouble(self) -> bool:
        """Whether it ended without having done its work."""
        return self.has_ended and self is not JobState.COMPLETED


ADVICE = {
    JobState.FAILED: "its program ended with an error, which `hpckit logs` shows",
    JobState.OUT_OF_MEMORY: "it went over its memory: give it more, mem = … in the job, or let "
    'hpckit do so, on_out_of_memory = "double up to 64G"',
    JobState.TIMEOUT: "its walltime was up: resume goes on from what is saved; give it more "
    "walltime, or more max_restarts",
    JobState.NODE_FAIL: "its node died: resume goes on from what is saved; "
    'on_node_fail = "exclude" keeps off such nodes',
    JobState.PREEMPTED: "another job took its place: resume goes on from what is saved",
    JobState.CANCELLED: "somebody cancelled it, or what it was to come after did not end well: "
    "resume goes on from what is saved",
    JobState.UNKNOWN: "neither queue nor accounting knows it any more, and it left no exit "
    "status, as when its node died: resume goes on from what is saved",
}
"""One line for each class of trouble: what it means, and what to do."""


@dataclass(frozen=True)
class JobStatus:
    """One job, or one element of an array.

    Attributes
    ----------
    id
        As the scheduler writes it: ``123`` or ``123_4``.
    detail
        The scheduler's own word on why: the reason a job waits for, or an exit status.
    nodes
        Where it ran, in the scheduler's notation; empty where that is not known.
    """

    id: str
    state: JobState
    detail: str = ""
    nodes: str = ""


@dataclass(frozen=True)
class Standing:
    """How all jobs of a submission stand.

    Attributes
    ----------
    session
        Of the run, whose jobs they are.
    doubt
        What could not be asked and so is not known: a sentence.
    """

    jobs: Sequence[JobStatus]
    session: int
    doubt: str | None = None

    def counts(self) -> Counter[JobState]:
        """Return how many jobs there are of each class."""
        return Counter(job.state for job in self.jobs)

    @property
    def has_ended(self) -> bool:
        """Whether every job is at its end."""
        return all(job.state.has_ended for job in self.jobs)

    @property
    def is_sure(self) -> bool:
        """Whether the end of every job is known, rather than that nobody has it any more."""
        return self.has_ended and all(job.state is not JobState.UNKNOWN for job in self.jobs)

    @property
    def trouble(self) -> JobState | None:
        """The commonest class of those that did not do their work."""
        found = Counter(job.state for job in self.jobs if job.state.is_trouble)
        return found.most_common(1)[0][0] if found else None

    @property
    def state(self) -> JobState:
        """The class of the whole: running if any is, pending if any still is."""
        counts = self.counts()
        for state in (JobState.RUNNING, JobState.PENDING):
            if counts[state]:
                return state
        return self.trouble or JobState.COMPLETED

    @property
    def waits_for(self) -> str | None:
        """What the pending ones wait for, in the scheduler's words."""
        found = Counter(
            job.detail for job in self.jobs if job.state is JobState.PENDING and job.detail
        )
        return found.most_common(1)[0][0] if found else None
