"""What hpckit asks of whatever queues jobs, and the one that a site has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hpckit.jobstates import Standing
from hpckit.spec.site import Site
from hpckit.store.rundir import RunDir
from hpckit.store.submission import Submission


class Scheduler(Protocol):
    """A queue of batch jobs."""

    def limits(self) -> tuple[str, int]:
        """Return the cluster's name, and the number that an array's indices stay below."""
        ...

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

    def tagged(self) -> dict[str, str]:
        """Return the tag of each of the user's jobs in the queue, by its id."""
        ...

    def standings(self, submissions: Mapping[RunDir, Submission]) -> dict[RunDir, Standing]:
        """Return how the jobs of many runs stand, in few questions."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs, queued or running; those that have ended do not matter."""
        ...


def scheduler_of(site: Site) -> Scheduler:
    """Return what queues a site's jobs."""
    from hpckit.submit.slurm import Slurm

    return {"slurm": Slurm}[site.scheduler]()
