"""The batch script of a pilot, a job that holds workers for the driver of a farm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpckit.render.batch import command_launcher, together
from hpckit.render.container import Container, hpckit_argv, kept_patterns
from hpckit.render.script import Script, directives, log_pattern, with_options
from hpckit.render.submission import WORKERS, exported
from hpckit.spec.job import Job
from hpckit.spec.resources import Resources
from hpckit.spec.site import Partition, Site
from hpckit.store.elastic import Elastic
from hpckit.store.rundir import RunDir
from hpckit.units import Memory

OWN_BYTES = 100 << 20
"""Of a pilot beside its workers: measured as 82 MiB."""


@dataclass(frozen=True)
class PilotPlan:
    """What pilots are rendered from.

    Attributes
    ----------
    resources
        Of one task.
    slots
        Tasks at a time in each.
    partition
        By name, in place of the first that fits.
    options
        Further options of sbatch.
    container
        That the workers are in.
    driver
        The token of the driver that they work for; nobody has one before it starts.
    """

    run: RunDir
    job: Job
    resources: Resources
    slots: int
    partition: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    container: Container | None = None
    driver: str = ""


def pilot_script(plan: PilotPlan, site: Site) -> Script:
    """Return what the script of a pilot is rendered from.

    Raises
    ------
    SpecError
        No partition of the site fits.
    """
    asked = with_own(together(plan.resources, plan.slots))
    partition = site.partition_for(asked, plan.partition)
    walltime = asked.walltime or (partition.max_walltime if partition else None)
    program = ["pilot", str(plan.run.path), "--driver", plan.driver, "--slots", str(plan.slots)]
    if walltime is not None:
        program += ["--walltime", str(int(walltime))]
    output = log_pattern(plan.run.log("pilot-%j"))
    return Script(
        template="pilot.sh",
        title=f"{plan.job.name}: a pilot, which holds {plan.slots} workers for a farm",
        directives=with_options(
            {
                **directives(f"{plan.job.name}-pilot", asked, site, partition, output),
                "no-requeue": None,
            },
            plan.options,
        ),
        variables={
            **command_launcher(site, plan.resources),
            **exported(plan.container, site),
        },
        launch=hpckit_argv(plan.container, program),
        workers=plan.slots,
        kept=kept_patterns(plan.container, site.environment),
    )


def plan_pilots(run: RunDir, job: Job, elastic: Elastic, container: Container | None) -> PilotPlan:
    """Return what a run's pilots are rendered from.

    Raises
    ------
    SpecError
        No partition of the site fits a single worker.
    """
    task = elastic.resources or job.resources
    partition = elastic.site.partition_for(with_own(task), elastic.partition)
    slots = elastic.slots or _fitting_slots(partition, task, elastic.most)
    return PilotPlan(run, job, task, slots, elastic.partition, elastic.options, container)


def _fitting_slots(partition: Partition | None, task: Resources, most: int) -> int:
    """Return how many workers a pilot has, so that all can be `most`; one if nobody knows."""
    if partition is None or partition.cpus_per_node is None:
        return 1
    divisors = (n for n in range(WORKERS, 1, -1) if most % n == 0)
    fitting = (n for n in divisors if partition.obstacle(with_own(together(task, n))) is None)
    return next(fitting, 1)


def with_own(asked: Resources) -> Resources:
    """Return the resources of tasks with the memory of what looks after them."""
    return asked.updated(mem=Memory(asked.mem + OWN_BYTES)) if asked.mem else asked
