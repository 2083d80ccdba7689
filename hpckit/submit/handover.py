"""Handing a run to a scheduler: all of it or nothing, and once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hpckit import __version__
from hpckit.errors import BusyError, HpckitError, UsageError
from hpckit.store import manifest as manifests
from hpckit.store.atomic import write_bytes
from hpckit.store.create import Run
from hpckit.store.manifest import Manifest, State
from hpckit.store.rundir import RunDir
from hpckit.store.submission import ScheduledJob, Submission
from hpckit.submit.client import NoAnswer
from hpckit.submit.scheduler import Scheduler, scheduler_of

if TYPE_CHECKING:
    from hpckit.render.container import Container
    from hpckit.render.submission import Plan
    from hpckit.spec.job import Job
    from hpckit.spec.resources import Resources
    from hpckit.spec.site import Site
    from hpckit.store.block import TaskState
    from hpckit.store.elastic import Elastic


@dataclass(frozen=True)
class Wish:
    """How the user wants a run submitted; what is None is for hpckit to choose.

    Attributes
    ----------
    resources
        Of one task of a farm, or of an spmd job.
    elements, workers
        Of a farm's array, and the tasks at a time in each element.
    max_running
        Elements at a time.
    after
        Ids of jobs that must end well before.
    options
        Further options of sbatch.
    cause
        The class of the failure that makes hpckit submit again by itself.
    elastic
        How a farm's workers come and go, in jobs of their own; the job is their driver's.
    """

    resources: Resources
    elements: int | None = None
    workers: int | None = None
    max_running: int | None = None
    partition: str | None = None
    after: Sequence[str] = ()
    hold: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    excluded: Sequence[str] = ()
    cause: str | None = None
    elastic: Elastic | None = None


def plan(
    run: RunDir,
    job: Job,
    session: int,
    site: Site,
    wish: Wish,
    tasks: int,
    container: Container | None,
) -> Plan:
    """Return what a submission of a run asks for.

    Raises
    ------
    UsageError
        No partition fits, or an option is not allowed.
    """
    from hpckit.render.pilot import pilot_script, plan_pilots
    from hpckit.render.submission import Plan, shared_out

    elements: int | None = None
    workers: int | None = None
    if (elastic := _elastic(site, wish)) is not None:
        # The driver would meet only in the queue what stands against its pilots.
        pilot_script(plan_pilots(run, job, elastic, container), site)
        elements, workers = 1, elastic.most
    elif job.kind == "farm":
        elements, workers = shared_out(
            job,
            wish.resources,
            site,
            tasks,
            elements=wish.elements,
            workers=wish.workers,
            partition=wish.partition,
        )
    return Plan(
        run=run,
        job=job,
        session=session,
        resources=wish.resources,
        tasks=tasks,
        elements=elements,
        workers=workers,
        max_running=wish.max_running,
        partition=wish.partition,
        excluded=wish.excluded,
        options=wish.options,
        container=container,
        is_driver=wish.elastic is not None,
    )


def container_on(run: Run, site: Site) -> Container | None:
    """Return the container of a run on a site, where it has an image.

    Raises
    ------
    UsageError
        A folder that the site binds is not there.
    """
    from hpckit.render.container import container_of, require_sources

    if run.manifest.image is None:
        return None
    require_sources(site.binds)
    return container_of(run, run.manifest.image, [Path(run.manifest.directory)], site.binds)


def script_text(planned: Plan, site: Site) -> str:
    """Return the batch script of a plan.

    Raises
    ------
    UsageError
        No partition fits, an option is not allowed, or the template does not render.
    """
    from hpckit.render.script import render
    from hpckit.render.submission import run_script

    return render(run_script(planned, site), site, __version__)


def submit_new(run: Run, site: Site, wish: Wish) -> Manifest:
    """Submit a run that was just made; leave nothing of one that is refused.

    Raises
    ------
    UsageError
        Slurm refuses it, or an option is not allowed.
    LaunchError
        Slurm does not answer.
    """
    try:
        return submit(run, site, wish, None)
    except NoAnswer as error:
        if error.may_have_heard:
            raise
        shutil.rmtree(run.dir.path, ignore_errors=True)
        raise
    except HpckitError:
        shutil.rmtree(run.dir.path, ignore_errors=True)
        raise


def submit(run: Run, site: Site, wish: Wish, again: frozenset[TaskState] | None) -> Manifest:
    """Submit a run, or what is missing of one; return the manifest.

    Parameters
    ----------
    again
        The states of a farm's tasks that are to be done; None means all tasks.

    Raises
    ------
    UsageError
        Another process holds the run; nothing is to be done; or as `submit_new`.
    LaunchError
        Slurm does not answer.
    """
    from hpckit.store.lock import driving

    cluster, size = scheduler_of(site).limits()
    if site.max_array_size is None:
        site = site.model_copy(update={"max_array_size": size})
    with driving(run.dir):
        _require_unchanged(run)
        tasks = _pending_tasks(run, again)
        container = container_on(run, site)
        planned = plan(run.dir, run.job, run.manifest.sessions, site, wish, tasks, container)
        text = script_text(planned, site)
        path = run.dir.script(planned.session)
        write_bytes(path, text.encode())
        run.dir.exits.mkdir(exist_ok=True)
        submission = Submission(
            site=site,
            cluster=cluster,
            session=planned.session,
            tag=f"hpckit:{run.dir.id}:{planned.session}",
            script_sha256=hashlib.sha256(text.encode()).hexdigest(),
            resources=planned.resources,
            elements=planned.elements,
            workers=planned.workers,
            slots=planned.slots,
            wished_elements=wish.elements,
            wished_workers=wish.workers,
            max_running=planned.max_running,
            partition=planned.partition,
            tasks=tasks,
            retries_failed=again is not None and len(again) > 1,
            cause=wish.cause,
            excluded=tuple(wish.excluded),
            options=dict(wish.options),
        )
        return _hand_over(run, submission, path, wish)


def _require_unchanged(run: Run) -> None:
    """Refuse to go on with a run that somebody else has gone on with since it was read."""
    now = manifests.read(run.dir.manifest)
    sessions = {run.manifest.sessions, run.manifest.sessions - 1}
    if now.submissions != run.manifest.submissions or now.sessions not in sessions:
        raise BusyError(f"{run.dir.id}: has gone on meanwhile: `hpckit status {run.dir.id}`")


def _pending_tasks(run: Run, again: frozenset[TaskState] | None) -> int:
    """Write down which tasks are to be done, unless all are; return how many."""
    import numpy as np

    if run.job.kind == "spmd" or again is None:
        return len(run.sweep)
    from hpckit.store.attempts import earlier_attempts
    from hpckit.store.block import TaskState
    from hpckit.store.results import task_states
    from hpckit.store.segments import set_aside_damaged
    from hpckit.store.shares import Pending

    set_aside_damaged(run.dir.segments)
    count = len(run.sweep)
    states = task_states(run.dir, count)
    indices = np.flatnonzero(np.isin(states, [int(state) for state in again]))
    if not len(indices):
        failed = int((states == TaskState.FAILED).sum())
        remedy = f"; {failed} failed: `hpckit retry {run.dir.id}` does them again" if failed else ""
        raise UsageError(f"{run.dir.id}: no task is missing{remedy}")
    tried = earlier_attempts(run.dir, count)[indices]
    Pending(indices, tried).write(run.dir.pending(run.manifest.sessions))
    return len(indices)


def _hand_over(run: Run, submission: Submission, script: Path, wish: Wish) -> Manifest:
    """Give the script to sbatch, once for each array; the ids go into the manifest at once."""
    before = manifests.read(run.dir.manifest)
    manifest = run.manifest.with_submission(
        submission,
        state=State.SUBMITTED,
        reason=None,
        driver=None,
        finished=None,
        elastic=_elastic(submission.site, wish),
    )
    manifest.write(run.dir.manifest)
    jobs: list[ScheduledJob] = []
    scheduler = scheduler_of(submission.site)
    try:
        for first, elements in submission.parts():
            options = _options(wish, jobs, submission, elements)
            tag = f"{submission.tag}:{len(jobs)}"
            job = scheduler.submit(script, options, [str(first)] if jobs else [], tag)
            jobs.append(ScheduledJob(id=job, first=first, elements=elements))
            now = submission.model_copy(update={"jobs": tuple(jobs)})
            manifest = manifest.with_submission(now)
            manifest.write(run.dir.manifest)
    except NoAnswer as error:
        if not error.may_have_heard:
            _take_back(run, before, scheduler, jobs)
        raise
    except HpckitError:
        _take_back(run, before, scheduler, jobs)
        raise
    return manifest


def _elastic(site: Site, wish: Wish) -> Elastic | None:
    """Return how workers come and go, in jobs that ask for what the wish has."""
    if wish.elastic is None:
        return None
    own = {
        "site": site,
        "resources": wish.resources,
        "partition": wish.partition,
        "options": dict(wish.options),
    }
    return wish.elastic.model_copy(update=own)


def _take_back(
    run: Run, before: Manifest, scheduler: Scheduler, jobs: Sequence[ScheduledJob]
) -> None:
    """Leave the run as it was, with none of its jobs in the queue."""
    if jobs:
        with suppress(HpckitError):
            scheduler.cancel([job.id for job in jobs])
    before.write(run.dir.manifest)


def _options(
    wish: Wish, before: Sequence[ScheduledJob], submission: Submission, elements: int | None
) -> list[str]:
    """Return what sbatch is given beside the script, which itself names the first array."""
    needs = [f"afterok:{job}" for job in wish.after]
    throttle = ""
    if submission.max_running:
        throttle = f"%{submission.max_running}"
        # So many at a time in all arrays together: one array after the other.
        needs += [f"afterany:{before[-1].id}"] if before else []
    options = [f"--dependency={','.join(needs)}", "--kill-on-invalid-dep=yes"] if needs else []
    options += ["--hold"] if wish.hold else []
    if before and elements is not None:
        options.append(f"--array=0-{elements - 1}{throttle}")
    return options
