"""hpckit exec: one rank of an spmd job, or a whole farm, under whatever started it."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from hpckit.cli.options import gpus_option, output_option
from hpckit.cli.scheduled import scheduled_element, scheduled_rank
from hpckit.errors import HpckitError, UsageError
from hpckit.variables import DRIVER

if TYPE_CHECKING:
    from hpckit.spec.load import LoadedJob
    from hpckit.spec.sweep import Sweep
    from hpckit.store.create import Run


@click.command(help="Run one rank of a job, or a whole farm, under whatever started it.")
@click.argument("job", metavar="JOB|RUN")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--seed", type=click.IntRange(0), help="Seed of all random streams.")
@click.option("--session", type=click.IntRange(1), hidden=True, help="Of a submitted run.")
@click.option("--element", type=click.IntRange(0), hidden=True, help="Of the session's array.")
@click.option("--workers", type=click.IntRange(1), default=1, hidden=True, help="Of the element.")
@gpus_option
@output_option
def command(
    job: str,
    parameters: tuple[str, ...],
    seed: int | None,
    session: int | None,
    element: int | None,
    workers: int,
    gpus_per_task: int | None,
    output: Path | None,
) -> NoReturn:
    """Run under mpirun, srun, or a script; batch scripts of submitted runs give --session."""
    from hpckit.threads import limit_threads

    limit_threads(1)
    if (Path(job) / "run.json").is_file():
        if parameters:
            raise UsageError(f"{job}: the parameters of a run are fixed: leave {parameters[0]}")
        if gpus_per_task is not None:
            raise UsageError(f"{job}: the resources of a run are fixed: leave --gpus-per-task")
        run = Path(job).resolve()
        if session is None:
            _launched_rank(run)
        if element is None:
            scheduled_rank(run, session)
        scheduled_element(run, session, element, workers)
    from hpckit.spec.load import load_job
    from hpckit.spec.sweep import Sweep

    loaded = load_job(job).with_gpus(gpus_per_task)
    limit_threads(loaded.job.resources.cpus_per_task)
    sweep = Sweep.from_args(loaded.job, list(parameters))
    if loaded.job.kind == "farm":
        _farm(loaded, sweep, seed, output)
    _rank_by_hand(loaded, sweep, seed, output)


def _launched_rank(path: Path) -> NoReturn:
    """Be a rank of a run that another process has made and watches."""
    from hpckit.run.main import run_rank
    from hpckit.store.create import reopen
    from hpckit.store.failure import Failure
    from hpckit.store.lock import join_ranks
    from hpckit.store.progress import silent
    from hpckit.store.rundir import RunDir

    run = RunDir(path)

    def watched() -> Run:
        # Before it looks who drives the run: the next driver waits for this rank from now on.
        join_ranks(run)
        found = reopen(run)
        _require_watched(found)
        return found

    try:
        run_rank(watched, silent)
    except HpckitError as error:
        # MPI did not start, so the rank has no number; whoever watches shows the reason.
        Failure(0, f"hpckit: {error}", error.exit_code).leave(run.failure)
        raise
    sys.exit(0)


def _require_watched(run: Run) -> None:
    """Check that the process that made this run waits for its ranks.

    Raises
    ------
    UsageError
        It is a farm, has ended, or is worked on by nobody.
    """
    from hpckit.store.manifest import State

    driver = run.manifest.driver
    watched = (
        run.manifest.effective_state() is State.RUNNING
        and driver is not None
        and os.environ.get(DRIVER) == driver.token
    )
    if run.job.kind != "spmd" or not watched:
        raise UsageError(
            f"{run.dir.id}: `hpckit exec` of a run is for the ranks that hpckit itself launches: "
            f"`hpckit resume {run.dir.id}` goes on with it, `hpckit rerun` does it again"
        )


def _rank_by_hand(
    loaded: LoadedJob, sweep: Sweep, seed: int | None, output: Path | None
) -> NoReturn:
    """Be a rank that the user's own launcher started; rank 0 makes the run."""
    from hpckit.cli.terminal import lines
    from hpckit.run.main import run_rank
    from hpckit.store.create import create
    from hpckit.store.lock import driving
    from hpckit.store.rundir import runs_root

    root = runs_root(output)
    with ExitStack() as held:

        def make() -> Run:
            run = create(loaded, sweep, root=root, argv=sys.argv[1:], seed=seed)
            held.enter_context(driving(run.dir))
            return run

        directory, rank = run_rank(make, lines(loaded.job.name))
    if rank == 0:
        click.echo(f"results: {directory.results}")
    sys.exit(0)


def _farm(loaded: LoadedJob, sweep: Sweep, seed: int | None, output: Path | None) -> NoReturn:
    """Run a farm as `hpckit run` does, but not once a rank."""
    from hpckit.cli.foreground import summarise, work_new
    from hpckit.cli.means import Means, refuse_copies
    from hpckit.store.create import create
    from hpckit.store.rundir import runs_root

    refuse_copies(loaded.job.kind)
    run = create(loaded, sweep, root=runs_root(output), argv=sys.argv[1:], seed=seed)
    sys.exit(summarise(run, work_new(run, Means())))
