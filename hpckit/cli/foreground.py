"""Work on a run in the foreground, whatever its shape, to its end."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpckit.cli.means import Means
from hpckit.cli.terminal import progress_shown
from hpckit.errors import BusyError, UsageError
from hpckit.spec.messages import counted
from hpckit.store.create import Run
from hpckit.store.manifest import Manifest
from hpckit.variables import LAUNCHER

if TYPE_CHECKING:
    from hpckit.spec.resources import Resources
    from hpckit.store.block import TaskState

MAX_REASONS = 3


def work(run: Run, means: Means) -> Manifest:
    """Do what is missing of a run.

    Raises
    ------
    UsageError
        An option does not fit the job's shape, or the job refuses its parameters.
    HpckitError
        The run failed; the message is what the user must see.
    Interrupted
        Ctrl-C or SIGTERM.
    """
    from hpckit.store.block import TaskState

    if run.job.kind == "spmd":
        from hpckit.cli.ranks import work_ranks

        return work_ranks(run, means.ranks)
    return work_farm_shown(run, means, frozenset({TaskState.MISSING}))


def work_new(run: Run, means: Means) -> Manifest:
    """Do the whole of a run that was just made; leave nothing of one that is refused.

    Raises
    ------
    HpckitError
        As `work`.
    """
    try:
        return work(run, means)
    except BusyError:
        raise
    except UsageError:
        if not run.dir.holds_work():
            shutil.rmtree(run.dir.path, ignore_errors=True)
        raise


def say_of_source(run: Run) -> None:
    """Tell a user who has changed the job file since that the run goes on with its own copy."""
    from hpckit.analyse.values import shortest

    source = Path(run.manifest.job.source)
    copy = run.dir.job(source.suffix)
    if source.is_file() and source.read_bytes() != copy.read_bytes():
        click.echo(
            f"hpckit: {shortest(source)} has changed since: the run goes on with its own copy; "
            "a new run takes the new one",
            err=True,
        )


def work_farm_shown(run: Run, means: Means, again: frozenset[TaskState]) -> Manifest:
    """Do the tasks of a farm that are in one of the states `again`, and show the progress."""
    from hpckit.cli.elastic import pilots_for
    from hpckit.run.engines import Workplace, engine_class
    from hpckit.run.session import work_farm

    means = means.or_as_in(run.manifest)
    engine = means.engine_of(run.job)
    asked = run.job.resources
    if asked.ntasks > 1:
        _prepare_launcher(asked.ntasks)
    elastic = means.elastic(run.manifest.elastic if engine == run.manifest.engine else None)
    cpus = asked.cpus_per_task * asked.ntasks
    workers = engine_class(engine).fitting_workers(means.workers, cpus)
    room = _on_cards(asked) if elastic is None and means.where(run.job) is None else None
    if room is not None:
        workers = _fitting_cards(workers, room, means.workers)
    place = Workplace(
        workers if elastic is None else elastic.most,
        run.dir.log("worker-{pid}"),
        means.where(run.job),
        _launch_line(workers + 1) if engine_class(engine).needs_launcher else (),
        None if elastic is None else pilots_for(run, elastic),
    )
    run = replace(run, manifest=run.manifest.updated(elastic=elastic))
    with progress_shown(run.manifest.job.name) as terminal:
        return work_farm(run, engine, place, terminal.report, again=again)


def _on_cards(asked: Resources) -> int | None:
    """Return how many tasks the GPUs of this machine take; None if nobody knows."""
    from hpckit.run.gpu.driver import count
    from hpckit.submit.local import allocated_nodes

    cards = count() if asked.uses_gpus and allocated_nodes() == 1 else None
    return None if not cards else cards * (asked.ntasks_per_gpu or 1) // (asked.gpus_per_task or 1)


def _fitting_cards(workers: int, room: int, told: int | None) -> int:
    """Return so many workers as there is room for, unless the user has told how many."""
    if told is not None and told > room:
        raise UsageError(
            f"--workers {told}: the GPUs that this process sees take {counted(room, 'task')} at a "
            "time; say that several tasks may share one (ntasks_per_gpu in the job) for more"
        )
    return max(min(workers, room), 1)


def _launch_line(ranks: int) -> tuple[str, ...]:
    """Return the line that starts ranks, after telling Open MPI what it must know."""
    from hpckit.render.launcher import mpiexec_argv
    from hpckit.submit.local import find_mpiexec

    _tell_launcher()
    return tuple(mpiexec_argv(find_mpiexec(), ranks, []))


def _prepare_launcher(ranks: int) -> None:
    """Tell tasks that are MPI programs how their ranks start here, unless a script has."""
    from hpckit.render.launcher import mpiexec_argv

    if LAUNCHER not in os.environ:
        # The program's own MPI is the one on the PATH, rather than this environment's.
        os.environ[LAUNCHER] = shlex.join(mpiexec_argv("mpiexec", ranks, []))
        _tell_launcher()


def _tell_launcher() -> None:
    from hpckit.render.launcher import launcher_variables
    from hpckit.submit.local import allocated_nodes

    told = launcher_variables(allocated_nodes(), is_root=os.geteuid() == 0)
    for name, value in told.items():
        os.environ.setdefault(name, value)


def summarise(run: Run, final: Manifest) -> int:
    """Print how a run ended, and return the exit code."""
    from hpckit.analyse.values import shortest

    tasks = final.job.tasks
    failed = final.counts.get("failed", 0)
    missing = final.counts.get("missing", 0)
    done = tasks - failed - missing
    what = f"{done} of {tasks} tasks" if done < tasks else f"{tasks} tasks"
    if run.job.kind == "spmd":
        what = "1 rank" if final.ranks == 1 else f"{final.ranks} ranks"
    elif tasks == 1:
        what = "1 task" if done else "0 of 1 task"
    click.echo(f"{final.id}: {what} done in {final.seconds:.1f} s")
    click.echo(f"results: {shortest(run.dir.results)}")
    if failed:
        _print_failures(run, failed)
    if missing:
        _print_missing(run, missing, final.reason)
    return 3 if failed else 0


def _print_missing(run: Run, missing: int, reason: str | None) -> None:
    from hpckit.analyse.status import reference

    click.echo(f"stopped: {reason}; {missing} tasks are missing", err=True)
    click.echo(f"go on with: hpckit resume {reference(run.dir)}", err=True)


def _print_failures(run: Run, failed: int) -> None:
    from hpckit.analyse.status import reference
    from hpckit.analyse.values import headline
    from hpckit.store.failures import failed_tasks

    for task, text in failed_tasks(run.dir.results, MAX_REASONS):
        click.echo(f"task {task} failed: {headline(text)}", err=True)
    if failed > MAX_REASONS:
        click.echo(f"… and {failed - MAX_REASONS} more", err=True)
    named = reference(run.dir)
    click.echo(f"in full: hpckit logs {named} --task N", err=True)
    click.echo(f"do them again: hpckit retry {named}", err=True)
