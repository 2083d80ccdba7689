"""Work on a run in the foreground, whatever its shape, to its end."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpckit.cli.terminal import progress_shown
from hpckit.errors import BusyError, UsageError
from hpckit.store.create import Run
from hpckit.store.manifest import Manifest
from hpckit.variables import LAUNCHER

if TYPE_CHECKING:
    from hpckit.store.block import TaskState

MAX_REASONS = 3


def work(
    run: Run,
    *,
    engine: str | None,
    workers: int | None,
    ranks: int | None,
    address: str | None = None,
) -> Manifest:
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

        return work_ranks(run, ranks)
    return work_farm_shown(run, engine, workers, frozenset({TaskState.MISSING}), address)


def work_new(
    run: Run,
    *,
    engine: str | None,
    workers: int | None,
    ranks: int | None,
    address: str | None = None,
) -> Manifest:
    """Do the whole of a run that was just made; leave nothing of one that is refused.

    Raises
    ------
    HpckitError
        As `work`.
    """
    try:
        return work(run, engine=engine, workers=workers, ranks=ranks, address=address)
    except BusyError:
        raise
    except UsageError:
        if not run.dir.holds_work():
            shutil.rmtree(run.dir.path, ignore_errors=True)
        raise


def check_options(
    kind: str,
    engine: str | None,
    workers: int | None,
    ranks: int | None,
    rules: Mapping[str, Any] | None = None,
    address: str | None = None,
) -> None:
    """Refuse options that a job of this shape, or a launcher's copy of hpckit, cannot honour.

    Raises
    ------
    UsageError
        One of them was given.
    """
    refuse_copies(kind)
    if kind == "spmd" and (engine is not None or workers is not None):
        given = "--engine" if engine is not None else "--workers"
        raise UsageError(f"{given} is for farms: an spmd job takes --ranks N")
    for name, value in (rules or {}).items():
        if kind == "spmd" and value is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for farms: an spmd job has no tasks")
    if kind == "farm" and ranks is not None:
        raise UsageError("--ranks is for spmd jobs: a farm takes --workers N")
    if engine == "serial" and (workers or 1) > 1:
        raise UsageError(f"--workers {workers}: the engine serial has one; take threads, processes")
    if address is not None:
        _check_address(kind, engine, address)


def _check_address(kind: str, engine: str | None, address: str) -> None:
    from hpckit.run.engines import DEFAULT, engine_class

    if kind == "spmd":
        raise UsageError("--address is for farms: an spmd job takes --ranks N")
    engine = engine or DEFAULT
    if not getattr(engine_class(engine), "has_address", False):
        raise UsageError(
            f"--address {address}: the engine {engine} has its workers here; take --engine dask"
        )


def refuse_copies(kind: str) -> None:
    """Refuse to be one of several copies that a launcher started: each would do the whole job.

    Raises
    ------
    UsageError
        There are several.
    """
    from hpckit.run.ranks import launched_ranks

    copies = launched_ranks() or 1
    if copies > 1:
        remedy = "mpirun -n N hpckit exec JOB" if kind == "spmd" else "hpckit run JOB, once"
        raise UsageError(
            f"a launcher started {copies} copies of this command, and each would do the whole "
            f"job: start it as {remedy}"
        )


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


def work_farm_shown(
    run: Run,
    engine: str | None,
    workers: int | None,
    again: frozenset[TaskState],
    address: str | None = None,
) -> Manifest:
    """Do the tasks of a farm that are in one of the states `again`, and show the progress."""
    from hpckit.run.engines import DEFAULT
    from hpckit.run.session import work_farm
    from hpckit.store.provenance import usable_cores

    engine = engine or run.manifest.engine or DEFAULT
    asked = run.job.resources
    fitting = max(usable_cores() // (asked.cpus_per_task * asked.ntasks), 1)
    if asked.ntasks > 1:
        _prepare_launcher(asked.ntasks)
    workers = 1 if engine == "serial" else workers or run.manifest.workers or fitting
    with progress_shown(run.manifest.job.name) as terminal:
        return work_farm(run, engine, workers, terminal.report, again=again, address=address)


def _prepare_launcher(ranks: int) -> None:
    """Tell tasks that are MPI programs how their ranks start here, unless a script has."""
    from hpckit.render.launcher import launcher_variables, mpiexec_argv
    from hpckit.submit.local import allocated_nodes

    if LAUNCHER not in os.environ:
        # The program's own MPI is the one on the PATH, rather than this environment's.
        os.environ[LAUNCHER] = shlex.join(mpiexec_argv("mpiexec", ranks, []))
        told = launcher_variables(allocated_nodes(), is_root=os.geteuid() == 0)
        for name, value in told.items():
            os.environ.setdefault(name, value)


def summarise(run: Run, final: Manifest) -> int:
    """Print how a run ended, and return the exit code."""
    from hpckit.analyse.values import shortest

    tasks = final.job.tasks
    failed = final.counts.get("failed", 0)
    what = f"{tasks - failed} of {tasks} tasks" if failed else f"{tasks} tasks"
    if run.job.kind == "spmd":
        what = "1 rank" if final.ranks == 1 else f"{final.ranks} ranks"
    elif tasks == 1:
        what = "1 task" if not failed else "0 of 1 task"
    click.echo(f"{final.id}: {what} done in {final.seconds:.1f} s")
    click.echo(f"results: {shortest(run.dir.results)}")
    if failed:
        _print_failures(run, failed)
        return 3
    return 0


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
