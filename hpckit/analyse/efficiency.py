"""What submitted jobs used of what they asked for, and what to ask for the next time.

Ranks that wait for each other keep their CPUs busy: the CPU time of an MPI program tells whether
its CPUs were used, not whether it uses them well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any

from hpckit.jobstates import JobState
from hpckit.store.submission import Submission

_Parts = Iterable[tuple[float | None, float | None, float]]


@dataclass(frozen=True)
class Use:
    """What a job or array element used, over all the times that it ran; None is not known.

    Attributes
    ----------
    element
        Its number in the array.
    cpus, nodes, limit, asked_bytes
        What it was given: CPUs, nodes, seconds at a time, memory on a node.
    source, cpu_source, memory_source
        Who says how long it ran, its CPU time, and its memory; None is nobody.
    attempts, seconds, longest
        How often it ran, how long in all, and the longest time.
    cpu_seconds, cpu_seconds_given, cpu_is_least
        CPU time; CPUs times seconds of those times that it is known of; whether it is a lower
        bound.
    peak_bytes
        The most memory on a node.
    """

    id: str
    submission: Submission
    element: int | None
    cpus: int
    nodes: int
    limit: float | None
    asked_bytes: float | None
    source: str | None = None
    cpu_source: str | None = None
    memory_source: str | None = None
    state: JobState = JobState.UNKNOWN
    attempts: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    cpu_seconds: float | None = None
    cpu_seconds_given: float = 0.0
    cpu_is_least: bool = False
    peak_bytes: float | None = None

    @property
    def session(self) -> int:
        """The session of the run."""
        return self.submission.session

    @property
    def cpu(self) -> float | None:
        """The CPU time as a part of what its CPUs had."""
        return _part(self.cpu_seconds, self.cpu_seconds_given)

    @property
    def memory(self) -> float | None:
        """The peak as a part of the memory that it asked for."""
        return _part(self.peak_bytes, self.asked_bytes)

    @property
    def walltime(self) -> float | None:
        """The longest time as a part of what it may take."""
        return _part(self.longest or None, self.limit)

    @property
    def idle_seconds(self) -> float:
        """CPU seconds that it was given and did not use; -1 where that is not known."""
        if self.cpu_seconds is None:
            return -1.0
        return max(self.cpu_seconds_given - self.cpu_seconds, 0.0)

    @property
    def at_once(self) -> int:
        """How many tasks of a farm, or ranks, worked at a time."""
        whole = self.submission
        if whole.workers is None:
            return whole.resources.ntasks
        return min(whole.workers, ceil(whole.tasks / (whole.elements or 1)))

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        own = {name: value for name, value in vars(self).items() if name != "submission"}
        parts = {"cpu": self.cpu, "memory": self.memory, "walltime": self.walltime}
        return {**own, "session": self.session, **parts, "state": str(self.state)}


@dataclass(frozen=True)
class Measure:
    """How much of one resource all jobs together used.

    Attributes
    ----------
    used, asked
        CPU seconds of all; bytes on a node, and seconds, of the job that used most.
    overall
        The part that was used: of CPU time and walltime summed up, of memory weighted by time.
    median, most
        Of the parts, over the jobs.
    known
        How many jobs it is known of.
    """

    name: str
    used: float | None
    asked: float | None
    overall: float | None
    median: float | None
    most: float | None
    known: int


def measures(uses: Sequence[Use]) -> list[Measure]:
    """Return CPU, memory and walltime of all jobs together."""
    return [
        _measure("cpu", ((u.cpu_seconds, u.cpu_seconds_given, 1.0) for u in uses), summed=True),
        _measure("memory", ((u.peak_bytes, u.asked_bytes, u.seconds) for u in uses)),
        _measure("walltime", ((u.longest or None, u.limit, 1.0) for u in uses)),
    ]


def _measure(name: str, parts: _Parts, *, summed: bool = False) -> Measure:
    seen = [(used, asked, weight) for used, asked, weight in parts if used is not None]
    known = [(used, asked, weight) for used, asked, weight in seen if asked]
    ratios = [used / asked for used, asked, _ in known]
    sums = sum(used * w for used, _, w in known), sum(asked * w for _, asked, w in known)
    most = max(seen, key=lambda part: part[0], default=(None, None, 0.0))
    used, asked = sums if summed and known else most[:2]
    middle, highest = median(ratios) if ratios else None, max(ratios, default=None)
    return Measure(name, used, asked, _part(*sums), middle, highest, len(seen))


def _part(used: float | None, asked: float | None) -> float | None:
    return used / asked if used is not None and asked else None
