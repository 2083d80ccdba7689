"""What is missing of a run, done where the run was before, or where the user says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpckit.cli.contained import enter_again, image_option, same_image, with_image
from hpckit.cli.foreground import say_of_source, summarise, work, work_farm_shown
from hpckit.cli.means import Means, means_options
from hpckit.cli.options import F, output_option, resource_options, site_option
from hpckit.errors import UsageError
from hpckit.store import create
from hpckit.store.create import Run
from hpckit.store.manifest import Manifest, State
from hpckit.store.rundir import RunDir, find, runs_root
from hpckit.submit.settle import given_up

if TYPE_CHECKING:
    from hpckit.spec.resources import Resources
    from hpckit.spec.site import Site
    from hpckit.store.block import TaskState
    from hpckit.submit.handover import Wish
    from hpckit.submit.policy import Remedy


@dataclass(frozen=True)
class Again:
    """How the user wants a run to go on; what is None stays as it was."""

    means: Means
    site: str | None
    here: bool
    walltime: str | None
    mem: str | None
    image: str | None

    @classmethod
    def of(cls, options: dict[str, Any]) -> Again:
        """Make it of a command's options."""
        return cls(Means.taken_from(options), **options)

    def site_of(self, run: Run) -> Site | None:
        """Return the site that the run is to be submitted to; None means the foreground.

        Raises
        ------
        UsageError
            Options contradict each other.
        """
        from hpckit.spec.site import load_site

        latest = run.manifest.submissions[-1] if run.manifest.submissions else None
        was_submitted = latest is not None and latest.session == run.manifest.sessions
        if self.here and self.site:
            raise UsageError("--here and --site exclude each other")
        site = None
        if self.site:
            site = load_site(self.site)
        elif latest is not None and was_submitted and not self.here:
            site = latest.site
        if site is None and (self.walltime or self.mem):
            raise UsageError("--walltime and --mem are for runs that are submitted: give --site")
        means = self.means_on(site, run.manifest)
        for option in ("engine", "address", "broker"):
            given = getattr(self.means, option)
            if site is not None and given and (option != "engine" or given != means.engine):
                raise UsageError(f"--{option} is for the foreground: give --here")
        return site

    def means_on(self, site: Site | None, before: Manifest) -> Means:
        """Return what executes the run: a farm whose workers are jobs keeps its engine."""
        from hpckit.run.engines import ELASTIC

        if site is None:
            return self.means.or_as_in(before)
        return replace(self.means, engine=None if before.elastic is None else ELASTIC)


def again_options(function: F) -> F:
    """Add the options of `Again`, but for --ranks."""
    options: list[Callable[[Any], Any]] = [
        click.option("--here", is_flag=True, help="In the foreground, though it was submitted."),
        site_option,
        means_options,
        resource_options,
        image_option,
        output_option,
    ]
    for option in reversed(options):
        function = option(function)
    return function


def open_again(ref: str, output: Path | None) -> Run:
    """Return a run that no scheduler works on any more.

    Raises
    ------
    UsageError
        Its jobs wait or run still.
    """
    run = find(ref, runs_root(output))
    manifest = given_up(run)
    if manifest.submission is not None:
        jobs = ", ".join(manifest.submission.ids)
        raise UsageError(
            f"{manifest.id}: its jobs {jobs} have not ended: `hpckit wait {manifest.id}` waits "
            f"for them, `hpckit cancel {manifest.id}` ends them"
        )
    return create.reopen(run)


def go_on(run: Run, options: Again, states: frozenset[TaskState], *, complete: str) -> int:
    """Do or submit the tasks in one of the states, or the ranks; return the exit code.

    Parameters
    ----------
    complete
        What to say of a run of which nothing is missing.

    Raises
    ------
    HpckitError
        As the commands have it.
    """
    site = options.site_of(run)
    manifest = run.manifest
    means = options.means_on(site, manifest)
    _require_fitting(run, means)
    if manifest.state is State.COMPLETED and run.dir.results.is_file():
        click.echo(f"{manifest.id}: is complete, {complete}")
        return 0
    image = same_image(options.image, run)
    if site is not None:
        return _submit(with_image(run, image), site, options, states)
    enter_again(run, image)
    again = create.take_up(with_image(run, image))
    say_of_source(again)
    is_farm = run.job.kind == "farm"
    return summarise(
        again, (work_farm_shown(again, means, states) if is_farm else work(again, means))
    )


def _require_fitting(run: Run, means: Means) -> None:
    if run.job.kind == "spmd":
        means = replace(means, engine=None, workers=None)
    means.require_fitting(run.job, run.manifest.job.rules)


def _submit(run: Run, site: Site, options: Again, states: frozenset[TaskState]) -> int:
    from hpckit.cli.submit import asked, tell

    before = _grown(run, wish_again(run))
    resources = asked(
        before.resources, ranks=options.means.ranks, walltime=options.walltime, mem=options.mem
    )
    tell(submit_again(run, site, _wished(before, resources, options.means), states))
    return 0


def _wished(before: Wish, resources: Resources, means: Means) -> Wish:
    """Return the wish of before with what the user asks for now.

    Raises
    ------
    UsageError
        Numbers of workers contradict each other, or those of before.
    """
    from hpckit.cli.elastic import elastic_again

    workers = means.workers or before.workers
    if before.elastic is None:
        return replace(before, resources=resources, workers=workers)
    elastic = elastic_again(before.elastic, means.min_workers, means.max_workers, means.workers)
    return replace(before, resources=resources, workers=workers, elastic=elastic)


def _grown(run: Run, wish: Wish) -> Wish:
    """Return a wish for what the job's policy gives after jobs that ended as the latest did."""
    from hpckit.jobstates import JobState

    outcome = run.manifest.submissions[-1].outcome if run.manifest.submissions else {}
    for name in (JobState.OUT_OF_MEMORY, JobState.TIMEOUT):
        if outcome.get(str(name)):
            grown = run.job.policy.grown(wish.resources, name)
            return wish if grown is None else replace(wish, resources=grown)
    return wish


def submit_again(run: Run, site: Site, wish: Wish, states: frozenset[TaskState]) -> Manifest:
    """Submit the tasks of a run that are in one of the states, or its ranks.

    Raises
    ------
    UsageError, LaunchError
        As `hpckit.submit.handover.submit`.
    """
    from hpckit.submit.handover import submit

    again = create.take_up(run)
    say_of_source(again)
    return submit(again, site, wish, states)


def apply(remedy: Remedy, run: RunDir) -> Manifest:
    """Submit again what is missing of a run that has been closed, as its policy has it.

    Raises
    ------
    UsageError, LaunchError
        As `hpckit.submit.handover.submit`.
    """
    from hpckit.jobstates import JobState
    from hpckit.store.block import TaskState

    found = create.reopen(run)
    latest = found.manifest.submissions[-1]
    wish = replace(
        wish_again(found),
        resources=remedy.resources,
        excluded=remedy.excluded,
        cause=str(remedy.cause),
    )
    # A task whose worker was killed for its memory counts as failed.
    again = frozenset({TaskState.MISSING})
    if latest.retries_failed or remedy.cause in (JobState.OUT_OF_MEMORY, JobState.FAILED):
        again |= {TaskState.FAILED}
    manifest = submit_again(found, latest.site, wish, again)
    click.echo(f"hpckit: {remedy}", err=True)
    return manifest


def wish_again(run: Run) -> Wish:
    """Return the wish of a run's latest submission, or what its job asks for."""
    from hpckit.submit.handover import Wish

    if not run.manifest.submissions:
        return Wish(resources=run.job.resources)
    latest = run.manifest.submissions[-1]
    return Wish(
        resources=latest.resources,
        elements=latest.wished_elements,
        workers=latest.wished_workers,
        max_running=latest.max_running,
        partition=latest.partition,
        options=latest.options,
        excluded=latest.excluded,
        elastic=run.manifest.elastic,
    )
