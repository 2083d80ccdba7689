"""What hpckit asks of whatever queues jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hpckit.jobstates import Standing
from hpckit.store.rundir import RunDir
from hpckit.store.submission import Submission


class Scheduler(Protocol):
    """A queue of batch jobs."""

    def check(self, script: Path, options: Sequence[str]) -> str:
        """Have a script checked without queueing it, and return what the scheduler says.

        Raises
        ------
        UsageError
            It would be refused.
        """
        ...

    def submit(
        self, script: Path, options: Sequence[str], arguments: Sequence[str], tag: str
    ) -> str:
        """Queue a script that bears a tag, once, and return the job's id.

        Raises
        ------
        UsageError
            It was refused, in the scheduler's own words.
        LaunchError
            The scheduler does not answer.
        """
        ...

    def find(self, tag: str) -> list[str]:
        """Return the ids of the jobs in the queue that bear a tag."""
        ...

    def standings(self, submissions: Mapping[RunDir, Submission]) -> dict[RunDir, Standing]:
        """Return how the jobs of many runs stand, in few questions."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs, queued or running; those that have ended do not matter."""
        ...
