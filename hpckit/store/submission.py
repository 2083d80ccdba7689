"""What a run has handed to a scheduler, as its manifest keeps it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from hpckit.spec.resources import Resources
from hpckit.spec.site import Site


def first_array(elements: int, site: Site) -> int:
    """Return how many of the elements the first array takes; an index stays below the limit."""
    return min(elements, site.max_array_size or elements)


class ScheduledJob(BaseModel):
    """One job of the scheduler, or one array.

    Attributes
    ----------
    id
        The scheduler's.
    first, elements
        Of an array: the number of its first element among all of the submission, and how many
        it has; None for a plain job.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    first: int = 0
    elements: int | None = None

    def ids(self) -> Iterator[str]:
        """Yield the id of each element."""
        if self.elements is None:
            yield self.id
        else:
            yield from (f"{self.id}_{number}" for number in range(self.elements))


class Submission(BaseModel):
    """Work handed to a scheduler at one time.

    Attributes
    ----------
    cluster
        The name that the scheduler gives itself.
    session
        Of the run: the first one is 1.
    tag
        The comment that all its jobs bear, by which they are found if their ids were lost.
    script_sha256
        Of the batch script.
    resources
        What each job asks for.
    elements, workers
        Of a farm: how many array elements share the tasks, and the tasks at a time in each.
    slots
        For how many tasks at a time an element has cores, where that is not for all.
    wished_elements, wished_workers
        What the user gave; None left it to hpckit.
    max_running
        Elements at a time.
    partition
        The one that the user named.
    tasks
        How many it is to do.
    retries_failed
        Whether tasks that failed before are among them.
    jobs
        None as long as the scheduler has not answered.
    cause
        The class of the failure that made hpckit submit again by itself.
    excluded
        Nodes to keep off.
    options
        Further options of sbatch that the user gave.
    outcome
        How many jobs or elements ended in each class, once all have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Site
    cluster: str = ""
    session: int
    tag: str
    script_sha256: str
    resources: Resources
    elements: int | None = None
    workers: int | None = None
    slots: int | None = None
    wished_elements: int | None = None
    wished_workers: int | None = None
    max_running: int | None = None
    partition: str | None = None
    tasks: int = 1
    retries_failed: bool = False
    jobs: tuple[ScheduledJob, ...] | None = None
    cause: str | None = None
    excluded: tuple[str, ...] = ()
    options: dict[str, str] = {}
    outcome: dict[str, int] = {}

    @property
    def ids(self) -> list[str]:
        """The ids of its jobs and arrays."""
        return [job.id for job in self.jobs or ()]

    def parts(self) -> list[tuple[int, int | None]]:
        """Return the arrays that it is made of: the number of the first element, and how many.

        An array's indices stay below the site's limit. A plain job is one part without a count.
        """
        if self.elements is None:
            return [(0, None)]
        size = first_array(self.elements, self.site)
        starts = range(0, self.elements, size)
        return [(first, min(size, self.elements - first)) for first in starts]

    @property
    def is_whole(self) -> bool:
        """Whether the scheduler has given an id to every part."""
        return len(self.jobs or ()) == len(self.parts())

    @property
    def is_open(self) -> bool:
        """Whether it is not known yet how its jobs ended."""
        return not self.outcome
