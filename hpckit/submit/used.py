"""What jobs used of what they were given, as Slurm's accounting knows it.

A job's row has its time and its CPUs; CPU time and memory are gathered in the rows of its steps,
the batch script being one, and are written when a step ends. A job that went back to the queue
has a row, and steps, for each time that it ran.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import ceil

from hpckit.errors import UsageError
from hpckit.jobstates import NO_PROGRESS, TIME_IS_UP, JobState
from hpckit.submit.accounting import IDS_A_CALL, expanded, job_state
from hpckit.submit.client import NoAnswer, Refused, ask
from hpckit.units import DAY

COLUMNS = (
    "JobID,State,ExitCode,ElapsedRaw,TimelimitRaw,AllocCPUS,NNodes,NTasks,ReqMem,TotalCPU,"
    "MaxRSS,TRESUsageInTot,TRESUsageInMax"
)

_BY_ITSELF = ("COMPLETED", "FAILED")
"""States, as Slurm writes them, of jobs that nothing else ended."""

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([KMGTP]?)([nc]?)")
_TIME = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+(?:\.\d+)?)")
_POLLED_CPU = re.compile(r"(?:^|,)cpu=([^,]+)")


@dataclass(frozen=True)
class JobUsed:
    """What a job or an element of an array used, over all the times that it ran.

    None is what was not gathered.

    Attributes
    ----------
    state
        Of the last time.
    attempts
        How often it ran.
    seconds, longest
        Of all times together, and of the longest one.
    limit
        Seconds that it may run at a time.
    cpus, nodes
        It was given the last time.
    cpu_seconds
        User and system time of its processes, as far as Slurm saw it: of those that nobody waited
        for, such as the workers of a fork server, it may have seen less, or nothing.
    cpu_seconds_given
        CPUs times seconds of those times that `cpu_seconds` is of; of all where it is None.
    cpu_is_least
        Whether it was killed, and may have used more CPU time than was seen.
    peak_bytes
        The most memory that it held on a node; see `_Attempt.peak_bytes`.
    asked_bytes
        The memory that it asked for on a node.
    """

    id: str
    state: JobState
    attempts: int
    seconds: float
    longest: float
    limit: float | None
    cpus: int
    nodes: int
    cpu_seconds: float | None
    cpu_seconds_given: float
    cpu_is_least: bool
    peak_bytes: int | None
    asked_bytes: int | None


def gathered(ids: Sequence[str], since: str) -> tuple[dict[str, JobUsed], str | None]:
    """Ask sacct what jobs and arrays used.

    Parameters
    ----------
    since
        A date before they were submitted, ISO 8601: where Slurm began to count anew, jobs of
        former times have the same ids.

    Returns
    -------
    dict
        What is known, by the id of the job or element.
    str
        Why nothing is known, where the accounting cannot be asked.
    """
    found: dict[str, JobUsed] = {}
    # -D: the former rows of jobs that went back to the queue too.
    argv = ["sacct", "-n", "-P", "-D", "--noconvert", "-S", since, "-o", COLUMNS, "-j"]
    for start in range(0, len(ids), IDS_A_CALL):
        try:
            text = ask([*argv, ",".join(ids[start : start + IDS_A_CALL])])
        except (Refused, NoAnswer, UsageError) as error:
            return {}, str(error)
        found |= used(text.splitlines())
    return found, None


def used(lines: Iterable[str]) -> dict[str, JobUsed]:
    """Read lines of ``sacct -P -D`` with `COLUMNS`; those that do not read are left out."""
    attempts: dict[str, list[_Attempt]] = {}
    for line in lines:
        row = line.split("|")
        if len(row) != 1 + COLUMNS.count(","):
            continue
        job, is_step, _ = row[0].partition(".")
        for one in expanded(job):
            known = attempts.setdefault(one, [])
            if not is_step:
                known.append(_Attempt(_Row(row)))
            elif known:
                known[-1].steps.append(_Row(row))
    return {job: _summed(job, known) for job, known in attempts.items() if known}


def _summed(job: str, attempts: Sequence[_Attempt]) -> JobUsed:
    last = attempts[-1]
    with_cpu = [a for a in attempts if a.cpu_seconds is not None]
    peaks = [a.peak_bytes for a in attempts if a.peak_bytes is not None]
    return JobUsed(
        id=job,
        state=last.state,
        attempts=sum(a.row.seconds > 0 for a in attempts),
        seconds=sum(a.row.seconds for a in attempts),
        longest=max(a.row.seconds for a in attempts),
        limit=last.row.limit,
        cpus=last.row.cpus,
        nodes=last.row.nodes,
        cpu_seconds=sum(a.cpu_seconds or 0.0 for a in with_cpu) if with_cpu else None,
        cpu_seconds_given=sum(a.row.seconds * a.row.cpus for a in with_cpu or attempts),
        cpu_is_least=any(a.row.word not in _BY_ITSELF for a in with_cpu),
        peak_bytes=max(peaks, default=None),
        asked_bytes=last.asked_bytes,
    )


@dataclass
class _Attempt:
    """One time that a job ran."""

    row: _Row
    steps: list[_Row] = field(default_factory=list)

    @property
    def state(self) -> JobState:
        """Its class; a program that stopped as its time was nearly up is at its time's end."""
        state = job_state(self.row.word)
        times_up = self.row.code in (str(TIME_IS_UP), str(NO_PROGRESS))
        return JobState.TIMEOUT if state is JobState.FAILED and times_up else state

    @property
    def cpu_seconds(self) -> float | None:
        """The sum over its steps, or what its own row says where they say nothing.

        While it runs, the steps that have ended say too little.
        """
        if self.state is JobState.RUNNING:
            return None
        known = [step.cpu_seconds for step in self.steps if step.cpu_seconds]
        return sum(known) or self.row.cpu_seconds or None

    @property
    def peak_bytes(self) -> int | None:
        """The memory of its largest step on the node that has most tasks of it.

        Slurm samples the resident memory of all processes of a task and sums it up; what they
        share counts in each of them. ``MaxRSS`` is the most that one task of the step had. Times
        the tasks on a node it is an upper estimate. Steps are not summed up: hpckit's scripts
        start one program, beside which the batch script only waits.
        """
        peaks = [step.rss * self._tasks_on_a_node(step) for step in self.steps if step.rss]
        return max(peaks, default=None)

    def _tasks_on_a_node(self, step: _Row) -> int:
        """Return its tasks on the fullest node: CPUs may lie unevenly, more of them on the first.

        How many of them are on the first node is what the batch script's row says.
        """
        if step.nodes <= 1:
            return step.tasks
        first = next((s.cpus for s in self.steps if s.id.endswith(".batch")), 0)
        share = max(first / max(self.row.cpus, 1), 1 / step.nodes)
        return ceil(step.tasks * min(share, 1.0))

    @property
    def asked_bytes(self) -> int | None:
        """The memory that it asked for on a node.

        Slurm before 21.08 writes what a node (``4Gn``) or a CPU (``2Gc``) is to have; since then
        it is all nodes' together.
        """
        match = _MEMORY.fullmatch(self.row.memory)
        size = _bytes(self.row.memory)
        if match is None or not size:
            return None
        of = match[3]
        return size if of == "n" else size * (self.row.cpus if of else 1) // self.row.nodes


class _Row:
    """One line: of a job, or of a step of it."""

    def __init__(self, fields: Sequence[str]) -> None:
        self.id, word, code, seconds, limit, cpus, nodes, tasks = fields[:8]
        self.memory, cpu, rss, *polled = fields[8:]
        self.word = word.split()[0].rstrip("+") if word.strip() else ""
        self.code = code.partition(":")[0]
        self.seconds = float(_count(seconds) or 0)
        minutes = _count(limit)
        self.limit = None if minutes is None else 60.0 * minutes
        self.cpus = _count(cpus) or 0
        self.nodes, self.tasks = _count(nodes) or 1, _count(tasks) or 1
        self.rss = _bytes(rss)
        # The first counts processes that ended and were waited for, and is 0 in steps of newer
        # Slurm; the others are the latest and the largest sample of those that live.
        samples = filter(None, map(_POLLED_CPU.search, polled))
        self.cpu_seconds = max(_seconds(cpu), *(_seconds(match[1]) for match in samples), 0.0)


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _bytes(text: str) -> int:
    """Read ``127168K``, a plain number of bytes, or nothing."""
    match = _MEMORY.fullmatch(text)
    if match is None:
        return 0
    return int(Decimal(match[1]) * 1024 ** " KMGTP".index(match[2] or " "))


def _seconds(text: str) -> float:
    """Read ``MM:SS.mmm``, ``HH:MM:SS`` or ``D-HH:MM:SS``; nothing is 0."""
    match = _TIME.fullmatch(text)
    if match is None:
        return 0.0
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * DAY + hours * 3600 + minutes * 60 + seconds
