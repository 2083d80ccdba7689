"""The batch script of a run that is to be submitted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hpckit.errors import SpecError, UsageError
from hpckit.jobstates import TIME_IS_UP
from hpckit.render.batch import command_launcher, room, together
from hpckit.render.container import Container, exports, hpckit_argv, kept_patterns
from hpckit.render.script import Script, directives, log_pattern, rank_launch, with_options
from hpckit.spec.job import AWAITED, Job
from hpckit.spec.messages import shown
from hpckit.spec.resources import Resources
from hpckit.spec.site import Partition, Site
from hpckit.store.rundir import RunDir
from hpckit.store.submission import first_array
from hpckit.threads import thread_exports
from hpckit.units import Memory
from hpckit.variables import NTASKS, WARNING

RESERVED = (
    *("array", "chdir", "cluster", "clusters", "comment", "dependency", "export", "export-file"),
    *("hold", "no-requeue", "parsable", "requeue", "test-only", "wait", "wrap"),
)
"""Options of sbatch that hpckit gives by itself."""

WORKERS = 4
"""Tasks at a time in an element, where the user does not say: more wait longer for a free node."""

DRIVER = Resources(mem=Memory.parse("1G"))
"""What a driver needs that does no task itself: measured with a million tasks, times six."""

ELEMENTS = 100
"""Elements of an array, where the user does not say: enough to use a cluster, few files."""


@dataclass(frozen=True)
class Plan:
    """What one submission of a run asks for.

    Attributes
    ----------
    resources
        Of one task of a farm, or of an spmd job.
    tasks
        That are to be done.
    elements, workers
        Of an array, and the tasks at a time in each of its elements.
    max_running
        Elements at a time.
    partition
        By name, in place of the first that fits.
    options
        Further options of sbatch.
    container
        That its programs work in.
    is_driver
        Whether its job does no task itself, but submits others that do.
    """

    run: RunDir
    job: Job
    session: int
    resources: Resources
    tasks: int = 1
    elements: int | None = None
    workers: int | None = None
    max_running: int | None = None
    partition: str | None = None
    excluded: Sequence[str] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    container: Container | None = None
    is_driver: bool = False

    @property
    def job_resources(self) -> Resources:
        """What each job asks for."""
        return DRIVER if self.is_driver else together(self.resources, self.slots)

    @property
    def slots(self) -> int:
        """For how many tasks at a time each job asks for cores."""
        return self.job.slots(self.workers or 1)

    def partition_on(self, site: Site) -> Partition | None:
        """Return the partition that its jobs go to.

        Raises
        ------
        SpecError
            None fits, or the one that is named does not.
        """
        return site.partition_for(self.job_resources, self.partition)


def shared_out(
    job: Job,
    resources: Resources,
    site: Site,
    tasks: int,
    *,
    elements: int | None,
    workers: int | None,
    partition: str | None,
) -> tuple[int, int]:
    """Return how many elements share a farm's tasks, and how many tasks each works on at a time.

    Raises
    ------
    SpecError
        No partition fits.
    UsageError
        The user asked for more elements than may be in the queue.
    """
    if resources.ntasks > 1:
        if (workers or 1) > 1:
            raise UsageError(
                f"--workers {workers}: each task is a program of {resources.ntasks} "
                "ranks, one at a time: give --elements"
            )
        workers = 1
    if workers is None:
        chosen = site.partition_for(resources, partition)
        share = tasks if elements is None else -(-tasks // elements)
        workers = min(share, AWAITED if job.is_async else room(chosen, resources, WORKERS))
    most = site.max_submit_jobs
    if elements is None:
        elements = min(ELEMENTS, most or ELEMENTS, max(tasks // workers, 1))
    elements = min(elements, tasks)
    if most is not None and elements > most:
        raise UsageError(
            f"--elements {elements}: {site.name} takes {most} jobs of a user at a time, each "
            f"element counted: give {most} at most, each then has more of the tasks"
        )
    return elements, workers


def run_script(plan: Plan, site: Site) -> Script:
    """Return what the script of a submission is rendered from.

    Raises
    ------
    SpecError
        No partition of the site fits, or an option is not allowed.
    """
    if plan.is_driver:
        return _driver(plan, site)
    return _array(plan, site) if plan.job.kind == "farm" else _ranks(plan, site)


def checked_options(given: Iterable[str]) -> dict[str, str]:
    """Read further options of sbatch, each ``name=value`` or ``name``.

    Raises
    ------
    SpecError
        One is not of that form, is given twice, or is hpckit's own.
    """
    options: dict[str, str] = {}
    for text in given:
        name, _, value = text.removeprefix("--").partition("=")
        if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
            raise SpecError(
                f"{shown(text)} is no option of sbatch, name=value or name", key="sbatch"
            )
        if name in RESERVED:
            raise SpecError(
                "is hpckit's own to give: see the options of `hpckit submit`, and max_restarts",
                key=f"--sbatch {name}",
            )
        if not value.isprintable():
            raise SpecError(
                f"{shown(value)} cannot stand in a #SBATCH line, which has printable text",
                key=f"--sbatch {name}",
            )
        if name in options:
            raise SpecError("is given twice", key=f"--sbatch {name}")
        options[name] = value
    return options


def _array(plan: Plan, site: Site) -> Script:
    assert plan.elements is not None
    assert plan.workers is not None
    throttle = f"%{plan.max_running}" if plan.max_running else ""
    array = {"array": f"0-{first_array(plan.elements, site) - 1}{throttle}"}
    share = f"{plan.tasks} tasks of a farm, shared by the {plan.elements} elements of an array"
    program = [*_program(plan), "--workers", str(plan.workers)]
    launcher = command_launcher(site, plan.resources)
    return _script(
        plan,
        site,
        template="array.sh",
        title=f"{plan.job.name}: {share}",
        asked=together(plan.resources, plan.slots),
        own=array,
        variables={**launcher, **exported(plan.container, site)},
        launch=program,
        workers=plan.workers,
        id="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
    )


def _driver(plan: Plan, site: Site) -> Script:
    """Return the script of a driver: an array of one element, without an image of its own."""
    partition = plan.partition_on(site)
    longest = partition.max_walltime if partition else None
    return _script(
        plan,
        site,
        template="driver.sh",
        title=f"{plan.job.name}: the driver of {plan.tasks} tasks, whose workers are other jobs",
        asked=DRIVER.updated(walltime=longest or plan.resources.walltime),
        own={"array": "0"},
        variables=exported(None, site),
        launch=[*_arguments(plan, None), "--workers", str(plan.workers), "--element", "0"],
        workers=plan.workers,
        id="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
    )


def _ranks(plan: Plan, site: Site) -> Script:
    asked = plan.resources
    variables = {NTASKS: str(asked.ntasks), **thread_exports(asked.cpus_per_task)}
    return _script(
        plan,
        site,
        template="ranks.sh",
        title=f"{plan.job.name}: an MPI program on {asked.ntasks} ranks",
        asked=asked,
        own={},
        variables={**variables, **exported(plan.container, site)},
        launch=rank_launch(site, asked, _program(plan)),
        id="$SLURM_JOB_ID",
    )


def _script(
    plan: Plan,
    site: Site,
    *,
    template: str,
    title: str,
    asked: Resources,
    own: Mapping[str, object],
    variables: Mapping[str, str],
    launch: Sequence[str],
    id: str,
    workers: int | None = None,
) -> Script:
    policy = plan.job.policy
    partition = plan.partition_on(site)
    limit = partition.max_walltime if partition else None
    warning = policy.seconds_before(asked.walltime or limit)
    output = log_pattern(plan.run.log("slurm-%A_%a" if own else "slurm-%j"))
    mine: dict[str, object | None] = {
        **directives(plan.job.name, asked, site, partition, output),
        "open-mode": "append",
        "signal": f"B:{policy.signal}@{warning}",
        "requeue" if policy.max_restarts else "no-requeue": None,
        **own,
    }
    if plan.excluded:
        mine["exclude"] = ",".join(plan.excluded)
    return Script(
        template=template,
        title=title,
        directives=with_options(mine, plan.options),
        variables={WARNING: f"{policy.signal}@{warning}", **variables},
        launch=launch,
        workers=workers,
        kept=kept_patterns(None if plan.is_driver else plan.container, site.environment),
        exits=plan.run.exits,
        id=id,
        signal=policy.signal,
        max_restarts=policy.max_restarts,
        time_is_up=TIME_IS_UP,
    )


def _program(plan: Plan) -> list[str]:
    return _arguments(plan, plan.container)


def _arguments(plan: Plan, container: Container | None) -> list[str]:
    arguments = ["exec", str(plan.run.path), "--session", str(plan.session)]
    return hpckit_argv(container, arguments)


def exported(container: Container | None, site: Site) -> dict[str, str]:
    """Return the variables that every script of a site exports."""
    scratch = {} if site.scratch is None else {"TMPDIR": site.scratch}
    return {**scratch, **exports(container), **site.environment}
