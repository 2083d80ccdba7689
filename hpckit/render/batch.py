"""From a job and a site to its batch script."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpckit.render.container import Container, exports, hpckit_argv, kept_patterns
from hpckit.render.script import Script, directives, rank_launch
from hpckit.spec.job import AWAITED, Job
from hpckit.spec.resources import Resources
from hpckit.spec.site import Partition, Site
from hpckit.threads import thread_exports
from hpckit.units import Memory
from hpckit.variables import LAUNCHER


@dataclass(frozen=True)
class Work:
    """What a script has to do.

    Attributes
    ----------
    source
        The job file; absolute.
    arguments
        What stands after it on hpckit's command line: ``name=value`` and options.
    tasks
        Of a farm.
    container
        That its programs work in.
    """

    job: Job
    source: Path
    arguments: Sequence[str]
    tasks: int = 1
    container: Container | None = None


def batch_script(work: Work, site: Site, workers: int | None = None) -> Script:
    """Return what the script of a job is rendered from.

    Parameters
    ----------
    workers
        Tasks of a farm at a time; None takes as many as a node of the partition has room for.

    Raises
    ------
    SpecError
        No partition of the site fits the job's resources.
    """
    return _spmd(work, site) if work.job.kind == "spmd" else _farm(work, site, workers)


def _spmd(work: Work, site: Site) -> Script:
    asked = work.job.resources
    name = work.job.name
    partition = site.partition_for(asked)
    return Script(
        template="spmd.sh",
        title=f"{name}: an MPI program on {asked.ntasks} ranks",
        directives=directives(name, asked, site, partition, f"{name}-%j.out"),
        variables={
            **thread_exports(asked.cpus_per_task),
            **exports(work.container),
            **site.environment,
        },
        kept=kept_patterns(work.container, site.environment),
        launch=rank_launch(site, asked, _program("exec", work)),
    )


def _farm(work: Work, site: Site, workers: int | None) -> Script:
    task, name = work.job.resources, work.job.name
    slots = 1 if workers is None else work.job.slots(workers)
    partition = site.partition_for(together(task, slots))
    if task.ntasks > 1:
        workers = 1
    if workers is None:
        most = AWAITED if work.job.is_async else room(partition, task)
        workers = min(most, work.tasks)
    asked = together(task, work.job.slots(workers))
    return Script(
        template="farm.sh",
        title=f"{name}: a farm of {work.tasks} tasks",
        directives=directives(name, asked, site, partition, f"{name}-%j.out"),
        variables={
            **command_launcher(site, task),
            **exports(work.container),
            **site.environment,
        },
        kept=kept_patterns(work.container, site.environment),
        launch=[*_program("run", work), "--workers", str(workers)],
        workers=workers,
    )


def command_launcher(site: Site, task: Resources) -> dict[str, str]:
    """Return the variable that tells how the ranks of a command are started, where it has some."""
    if task.ntasks == 1:
        return {}
    return {LAUNCHER: shlex.join(rank_launch(site, task, []))}


def room(partition: Partition | None, task: Resources, most: int | None = None) -> int:
    """Return how many tasks a node of a partition takes side by side; 1 if nobody knows."""
    cpus = partition.cpus_per_node if partition else None
    cores = (cpus or task.cpus_per_task) // task.cpus_per_task
    most = cores if most is None else min(cores, most)
    fitting = (n for n in range(most, 1, -1) if partition and _fits(partition, task, n))
    return next(fitting, 1)


def _fits(partition: Partition, task: Resources, workers: int) -> bool:
    return partition.obstacle(together(task, workers)) is None


def together(task: Resources, workers: int) -> Resources:
    """Return what some tasks need that one process works off side by side."""
    # A single process has the GPUs of all its workers; ranks that share some say so to Slurm.
    shared = {"gpus_per_task": task.gpus_of(workers), "ntasks_per_gpu": None}
    return task.updated(
        cpus_per_task=task.cpus_per_task * workers,
        **(shared if task.ntasks == 1 else {}),
        **({"mem": Memory(task.mem * workers)} if task.mem else {}),
    )


def _program(command: str, work: Work) -> list[str]:
    return hpckit_argv(work.container, [command, str(work.source), *work.arguments])
