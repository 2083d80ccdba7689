"""Runs that are with a scheduler: how they stand, and their end once their jobs have ended."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from hpckit.errors import BusyError, StoreError, UsageError
from hpckit.jobstates import ADVICE, JobState, JobStatus, Standing
from hpckit.store import manifest as manifests
from hpckit.store.manifest import Manifest, State
from hpckit.store.rundir import RunDir
from hpckit.store.submission import ScheduledJob, Submission
from hpckit.submit.scheduler import Scheduler, scheduler_of

if TYPE_CHECKING:
    from hpckit.store.create import Run

PATIENCE = 10.0
"""Seconds to wait for another process that settles the run too."""

INTERRUPTING = (JobState.TIMEOUT, JobState.NODE_FAIL, JobState.PREEMPTED, JobState.CANCELLED)
"""What comes from outside: the run is interrupted; by all else it has failed."""


def standings(runs: Iterable[RunDir]) -> dict[RunDir, Standing]:
    """Return how those of the runs stand that are with a scheduler, by one question for all.

    Raises
    ------
    LaunchError
        The scheduler does not answer.
    """
    asked: dict[RunDir, Submission] = {}
    for run in runs:
        with suppress(StoreError):
            submission = manifests.read(run.manifest).submission
            if submission is not None:
                asked[run] = submission
    if not asked:
        return {}
    # There is one kind of scheduler so far.
    scheduler = scheduler_of(next(iter(asked.values())).site)
    lost = {run: submission for run, submission in asked.items() if not submission.is_whole}
    asked |= {run: _adopted(run, submission, scheduler) for run, submission in lost.items()}
    found = scheduler.standings(asked)
    return {run: s if s.jobs else _never(s.session) for run, s in found.items()}


def standing_at_end(run: RunDir, manifest: Manifest) -> Standing | None:
    """Return how the jobs ended of a run whose end is known; None if it was not submitted.

    Raises
    ------
    LaunchError
        The scheduler does not answer.
    """
    latest = manifest.submissions[-1] if manifest.submissions else None
    if latest is None or latest.session != manifest.sessions:
        return None
    return scheduler_of(latest.site).standings({run: latest})[run]


def _never(session: int) -> Standing:
    return Standing([JobStatus("", JobState.UNKNOWN, "was not submitted")], session)


def _adopted(run: RunDir, submission: Submission, scheduler: Scheduler) -> Submission:
    """Find the jobs of a submission whose submitter was killed before it noted all ids."""
    from hpckit.store.lock import driving

    try:
        with driving(run):
            manifest = manifests.read(run.manifest)
            now = manifest.submission
            if now is None or now.is_whole:
                return now or submission
            jobs = list(now.jobs or ())
            ids = {tag: job for job, tag in scheduler.tagged().items()}
            for number, (first, elements) in list(enumerate(now.parts()))[len(jobs) :]:
                if (job := ids.get(f"{now.tag}:{number}")) is not None:
                    jobs.append(ScheduledJob(id=job, first=first, elements=elements))
            now = now.model_copy(update={"jobs": tuple(jobs)})
            manifest.with_submission(now).write(run.manifest)
            return now
    except BusyError:
        # It is being submitted.
        return submission


def settled(run: RunDir) -> Manifest:
    """Return a run's manifest, after ending the run if its jobs have ended.

    Raises
    ------
    LaunchError
        The scheduler does not answer.
    StoreError
        Something of the run does not read back, or results cannot be written.
    """
    standing = standings([run]).get(run)
    if standing is None or not standing.is_sure:
        return manifests.read(run.manifest)
    return close(run, standing)


def given_up(run: RunDir) -> Manifest:
    """Do as `settled`, and count jobs that nobody knows as ended: the user wants to go on.

    Raises
    ------
    UsageError
        This is another cluster than the jobs were submitted to.
    LaunchError, StoreError
        As `settled`.
    """
    standing = standings([run]).get(run)
    if standing is None or not standing.has_ended:
        return manifests.read(run.manifest)
    submission = manifests.read(run.manifest).submission
    if submission is not None and not standing.is_sure:
        require_cluster(run, submission)
    return close(run, standing)


def require_cluster(run: RunDir, submission: Submission) -> None:
    """See that this is the cluster that a submission went to, since its jobs are not known here.

    Raises
    ------
    UsageError
        It is another one.
    """
    here, _ = scheduler_of(submission.site).limits()
    if submission.cluster and here != submission.cluster:
        raise UsageError(
            f"{run.id}: was submitted on the cluster {submission.cluster}, and this is {here}, "
            "which does not know its jobs: ask there"
        )


def close(run: RunDir, standing: Standing) -> Manifest:
    """End a run whose jobs have ended: collect what is sealed, and say what became of it.

    Raises
    ------
    StoreError
        Something of the run does not read back, or results cannot be written.
    BusyError
        Another process holds it.
    """
    from hpckit.store.create import reopen
    from hpckit.store.lock import driving

    # The ids of array elements are no jobs' that hold a run: those of programs of ranks are.
    with driving(run, PATIENCE, [job.id for job in standing.jobs]):
        now = manifests.read(run.manifest)
        if now.submission is None or now.submission.session != standing.session:
            # Somebody else has closed it, and may have gone on with it.
            return now
        found = reopen(run)
        if found.manifest.elastic is not None:
            from hpckit.submit.pilots import end_pilots

            # Their driver may have been killed while they waited.
            end_pilots(run)
        outcome = {str(state): count for state, count in standing.counts().items()}
        if found.job.kind == "farm":
            from hpckit.store.collect import collect_array

            return collect_array(found, outcome, _ending(standing))
        return _close_ranks(found, outcome, _ending(standing))


def _close_ranks(run: Run, outcome: dict[str, int], ending: tuple[State, str]) -> Manifest:
    """Say how ranks were ended, unless they have said so themselves."""
    latest = run.manifest.submissions[-1].model_copy(update={"outcome": outcome})
    ended = run.manifest.with_submission(latest)
    if ended.state is not State.FAILED:
        ended = ended.ended(*ending, 0.0)
    ended.write(run.dir.manifest)
    return ended


def _ending(standing: Standing) -> tuple[State, str]:
    """Return the state of a run whose jobs have ended before their work, and why."""
    trouble = standing.trouble
    if trouble is None:
        return State.FAILED, "its jobs ended, and left some of the work: `hpckit logs` may say why"
    state = State.INTERRUPTED if trouble in INTERRUPTING else State.FAILED
    guilty = [job for job in standing.jobs if job.state is trouble]
    many = len(standing.jobs) > 1
    what = f"{trouble}: {len(guilty)} of {len(standing.jobs)} elements" if many else str(trouble)
    return state, f"{what}{_place(guilty)}: {ADVICE[trouble]}"


def _place(jobs: list[JobStatus]) -> str:
    details = sorted({job.detail for job in jobs if job.detail})
    nodes = sorted({job.nodes for job in jobs if job.nodes})
    said = [f"on {', '.join(nodes[:4])}{', …' if len(nodes) > 4 else ''}"] if nodes else []
    said += details[:2]
    return f" ({', '.join(said)})" if said else ""
