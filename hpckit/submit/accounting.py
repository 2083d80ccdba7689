"""How jobs stand: what sacct knows, else squeue, else the exit statuses that scripts left."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hpckit.errors import UsageError
from hpckit.jobstates import NO_PROGRESS, TIME_IS_UP, JobState, JobStatus, Standing
from hpckit.store.rundir import RunDir
from hpckit.store.submission import Submission
from hpckit.submit.client import NoAnswer, Refused, ask

STATES = {
    JobState.PENDING: "PENDING REQUEUED REQUEUE_HOLD REQUEUE_FED SPECIAL_EXIT RESV_DEL_HOLD",
    JobState.RUNNING: "RUNNING COMPLETING CONFIGURING SUSPENDED STOPPED RESIZING SIGNALING"
    " STAGE_OUT",
    JobState.COMPLETED: "COMPLETED",
    JobState.FAILED: "FAILED",
    JobState.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    JobState.TIMEOUT: "TIMEOUT DEADLINE",
    JobState.NODE_FAIL: "NODE_FAIL BOOT_FAIL LAUNCH_FAILED RECONFIG_FAIL",
    JobState.PREEMPTED: "PREEMPTED",
    JobState.CANCELLED: "CANCELLED REVOKED",
}
"""Slurm's own words (squeue(1), JOB STATE CODES), by class."""

_BY_WORD = {word: state for state, words in STATES.items() for word in words.split()}

IDS_A_CALL = 5000
"""Ids on one command line, which the kernel limits to 128 kB an argument."""

_TIMES_UP = (str(TIME_IS_UP), str(NO_PROGRESS))
_DOUBTFUL = (JobState.UNKNOWN, JobState.NODE_FAIL, JobState.PREEMPTED)
"""What accounting says so may be back in the queue."""

_KILLED, _TERMINATED = 128 + 9, (130, 128 + 15)
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


def job_state(word: str) -> JobState:
    """Return the class of a state as Slurm writes it, with what may follow: ``CANCELLED by 0``."""
    first = word.split()[0].rstrip("+") if word.strip() else ""
    return _BY_WORD.get(first, JobState.UNKNOWN)


def expanded(job: str) -> list[str]:
    """Return the single ids that one of Slurm's stands for: ``12_[1-3,7%2]`` for four of them.

    A part of a heterogeneous job, ``12+0``, counts as the job.
    """
    array, bracket, inside = job.partition("_[")
    if not bracket:
        return [job.partition("+")[0]]
    numbers: list[str] = []
    for part in inside.rstrip("]").partition("%")[0].split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is not None:
            first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
            numbers += [f"{array}_{number}" for number in range(first, last + 1, step)]
    return numbers


def standings(submissions: Mapping[RunDir, Submission]) -> dict[RunDir, Standing]:
    """Return how the jobs of many runs stand, by one question to each source.

    Raises
    ------
    LaunchError
        Neither accounting nor queue answers.
    """
    ids = [job for submission in submissions.values() for job in submission.ids]
    known = _accounted(ids)
    doubt = None
    wanted = [e for s in submissions.values() for job in s.jobs or () for e in job.ids()]
    if any(not _is_final(known.get(element)) for element in wanted):
        try:
            known = _queued(known, ids, wanted)
        except NoAnswer as error:
            if not known:
                raise
            doubt = f"the queue does not answer, so this is what accounting knew last ({error})"
    return {
        run: Standing(
            [_status(run, e, known, doubt) for job in s.jobs or () for e in job.ids()],
            s.session,
            doubt,
        )
        for run, s in submissions.items()
    }


def _is_final(status: JobStatus | None) -> bool:
    return status is not None and status.state.has_ended and status.state not in _DOUBTFUL


def _status(
    run: RunDir, element: str, known: Mapping[str, JobStatus], doubt: str | None
) -> JobStatus:
    status = known.get(element)
    if status is not None and status.state is not JobState.UNKNOWN:
        return status
    if doubt is not None:
        return JobStatus(element, JobState.PENDING)
    return left_status(run.exits, element)


def _accounted(ids: Sequence[str]) -> dict[str, JobStatus]:
    """Ask sacct; nothing is known where there is no accounting."""
    found: dict[str, JobStatus] = {}
    try:
        for start in range(0, len(ids), IDS_A_CALL):
            jobs = ids[start : start + IDS_A_CALL]
            found |= accounted(_rows(jobs, "-X", "-o", "JobID,State,ExitCode,NodeList"))
        failed = [job for job, status in found.items() if status.state is JobState.FAILED]
        for start in range(0, len(failed), IDS_A_CALL):
            jobs = failed[start : start + IDS_A_CALL]
            found |= told_by_steps(_rows(jobs, "-o", "JobID,State"), found)
    except (Refused, NoAnswer, UsageError):
        return {}
    return found


def _rows(jobs: Sequence[str], *options: str) -> list[str]:
    return ask(["sacct", "-n", "-P", "-j", ",".join(jobs), *options]).splitlines()


def told_by_steps(lines: Iterable[str], known: Mapping[str, JobStatus]) -> dict[str, JobStatus]:
    """Return those failed jobs anew whose steps say why: a launcher's exit status hides it.

    Parameters
    ----------
    lines
        Of ``sacct -P -o JobID,State``, with steps.
    """
    found = {}
    for line in lines:
        step, _, word = line.partition("|")
        job = step.partition(".")[0]
        state = job_state(word)
        if job in known and state in (JobState.OUT_OF_MEMORY, JobState.NODE_FAIL):
            found[job] = replace(known[job], state=state, detail="")
    return found


def accounted(lines: Iterable[str]) -> dict[str, JobStatus]:
    """Read lines of ``sacct -P -X -o JobID,State,ExitCode,NodeList``."""
    found = {}
    for line in lines:
        if line.count("|") < 3:
            continue
        job, word, code, nodes = line.split("|", 3)
        state = job_state(word)
        if state is JobState.FAILED and code.partition(":")[0] in _TIMES_UP:
            state = JobState.TIMEOUT
        nodes = "" if nodes.startswith("None") else nodes
        detail = f"exit {code}" if state is JobState.FAILED else ""
        for one in expanded(job):
            found[one] = JobStatus(one, state, detail, nodes)
    return found


def _queued(
    known: Mapping[str, JobStatus], ids: Sequence[str], wanted: Iterable[str]
) -> dict[str, JobStatus]:
    """Correct what accounting knows by the queue, which alone knows of what has not ended."""
    queue = in_queue(ids)
    found = dict(known)
    for element in wanted:
        before = found.get(element)
        if _is_final(before):
            continue
        if element in queue:
            found[element] = queue[element]
        elif before is not None and not before.state.has_ended:
            # Accounting thinks that it goes on, the queue has lost it: it died unnoticed.
            found[element] = JobStatus(element, JobState.UNKNOWN, "", before.nodes)
    return found


def in_queue(ids: Sequence[str]) -> dict[str, JobStatus]:
    """Return how jobs stand that the queue has, or has had a moment ago.

    Raises
    ------
    LaunchError
        The queue does not answer.
    """
    found: dict[str, JobStatus] = {}
    for start in range(0, len(ids), IDS_A_CALL):
        found |= queued(_queue_lines(ids[start : start + IDS_A_CALL]))
    return found


def _queue_lines(ids: Sequence[str]) -> list[str]:
    argv = ["squeue", "-h", "-t", "all", "-j", ",".join(ids), "-o", "%i|%T|%r|%N"]
    try:
        return ask(argv).splitlines()
    except Refused as refusal:
        # Asked for a single job that it has forgotten, squeue calls its id invalid.
        if "Invalid job id" in str(refusal):
            return []
        raise


def tags_question() -> list[str]:
    """Return the command that prints the user's jobs with their comments."""
    return ["squeue", "-h", "-t", "all", "-u", str(os.geteuid()), "-o", "%F|%k"]


def queued(lines: Iterable[str]) -> dict[str, JobStatus]:
    """Read lines of ``squeue -o %i|%T|%r|%N``."""
    found = {}
    for line in lines:
        if line.count("|") < 3:
            continue
        job, word, reason, nodes = line.split("|", 3)
        state = job_state(word)
        detail = "" if reason in ("None", "") or state is not JobState.PENDING else reason
        for one in expanded(job):
            found[one] = JobStatus(one, state, detail, nodes)
    return found


def left_status(exits: Path, element: str) -> JobStatus:
    """Return what the exit status that a script left says of a job that nobody else knows."""
    try:
        code = int((exits / element).read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return JobStatus(element, JobState.UNKNOWN)
    if code == 0:
        return JobStatus(element, JobState.COMPLETED)
    if str(code) in _TIMES_UP:
        return JobStatus(element, JobState.TIMEOUT)
    if code in _TERMINATED:
        return JobStatus(element, JobState.CANCELLED)
    detail = f"exit {code}" + (", killed, often for want of memory" if code == _KILLED else "")
    return JobStatus(element, JobState.FAILED, detail)


def tags(lines: Iterable[str]) -> dict[str, str]:
    """Read lines of ``squeue -o %F|%k``: the comment of each job, by its id."""
    pairs = (line.partition("|") for line in lines)
    return {job.strip(): comment.strip() for job, _, comment in pairs}
