"""What a job's policy makes of jobs that did not end well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from hpckit.jobstates import JobState, Standing
from hpckit.spec.policy import Policy
from hpckit.spec.resources import Resources
from hpckit.store.submission import Submission


@dataclass(frozen=True)
class Remedy:
    """How to submit again what is missing.

    Attributes
    ----------
    cause
        The class of what ended.
    number, tries
        Which try it is, and how many the policy allows.
    resources
        What to ask for.
    excluded
        Nodes to keep off.
    """

    cause: JobState
    number: int
    tries: int
    resources: Resources
    excluded: Sequence[str]

    def __str__(self) -> str:
        asked = self.resources
        changed = {
            JobState.OUT_OF_MEMORY: f" with mem={asked.mem or asked.mem_per_cpu}",
            JobState.TIMEOUT: f" with walltime={asked.walltime}",
            JobState.NODE_FAIL: f" without {', '.join(self.excluded)}" if self.excluded else "",
        }
        what = changed.get(self.cause, "")
        return f"{self.cause}: submitted again{what} (try {self.number} of {self.tries})"


def remedy(policy: Policy, submissions: Sequence[Submission], standing: Standing) -> Remedy | None:
    """Return what a policy says about jobs that have ended; None if it says nothing more.

    Parameters
    ----------
    submissions
        All of the run, the latest last.
    """
    cause = standing.trouble
    if cause is None or standing.counts()[JobState.CANCELLED]:
        # What somebody has cancelled is not to come back by itself.
        return None
    latest, tries = submissions[-1], policy.tries(cause)
    # What the user submits by hand begins anew.
    by_itself = list(takewhile(lambda s: s.cause is not None, reversed(submissions)))
    number = 1 + sum(s.cause == cause for s in by_itself)
    asked = policy.grown(latest.resources, cause)
    if number > tries or asked is None:
        return None
    guilty = [job.nodes for job in standing.jobs if job.state is cause and job.nodes]
    excluded = set(latest.excluded) | set(guilty if policy.excludes(cause) else [])
    return Remedy(cause, number, tries, asked, sorted(excluded))
