"""hpckit exec: one rank of an spmd job, or a whole farm, under whatever started it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from hpckit.cli.options import output_option
from hpckit.errors import HpckitError, UsageError

if TYPE_CHECKING:
    from hpckit.spec.load import LoadedJob
    from hpckit.spec.sweep import Sweep
    from hpckit.store.create import Run


@click.command(help="Run one rank of a job, or a whole farm, under whatever started it.")
@click.argument("job", metavar="JOB|RUN")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--seed", type=click.IntRange(0), help="Seed of all random streams.")
@output_option
def command(
    job: str, parameters: tuple[str, ...], seed: int | None, output: Path | None
) -> NoReturn:
    """Run under mpirun, srun, or a script."""
    from hpckit.run.engines import limit_threads

    limit_threads(1)
    if (Path(job) / "run.json").is_file():
        if parameters:
            raise UsageError(f"{job}: the parameters of a run are fixed: leave {parameters[0]}")
        _launched_rank(Path(job).resolve())
    from hpckit.spec.load import load_job
    from hpckit.spec.sweep import Sweep

    loaded = load_job(job)
    sweep = Sweep.from_args(loaded.job, list(parameters))
    if loaded.job.kind == "farm":
        _farm(loaded, sweep, seed, output)
    _rank_by_hand(loaded, sweep, seed, output)


def _launched_rank(path: Path) -> NoReturn:
    """Be a rank of a run that another process has made and watches."""
    from hpckit.run.main import run_rank
    from hpckit.store.create import reopen
    from hpckit.store.failure import Failure
    from hpckit.store.progress import silent
    from hpckit.store.rundir import RunDir

    run = RunDir(path)
    try:
        run_rank(lambda: reopen(run), silent)
    except HpckitError as error:
        # MPI did not start, so the rank has no number; whoever watches shows the reason.
        Failure(0, f"hpckit: {error}", error.exit_code).leave(run.failure)
        raise
    sys.exit(0)


def _rank_by_hand(
    loaded: LoadedJob, sweep: Sweep, seed: int | None, output: Path | None
) -> NoReturn:
    """Be a rank that the user's own launcher started; rank 0 makes the run."""
    from hpckit.cli.terminal import lines
    from hpckit.run.main import run_rank
    from hpckit.store.create import create
    from hpckit.store.rundir import runs_root

    root = runs_root(output)
    made: list[Run] = []

    def make() -> Run:
        made.append(create(loaded, sweep, root=root, argv=sys.argv[1:], seed=seed))
        return made[0]

    run_rank(make, lines(loaded.job.name))
    if made:
        click.echo(f"results: {made[0].dir.results}")
    sys.exit(0)


def _farm(loaded: LoadedJob, sweep: Sweep, seed: int | None, output: Path | None) -> NoReturn:
    """Run a farm as `hpckit run` does, but not once a rank."""
    from hpckit.cli.foreground import summarise, work
    from hpckit.run.ranks import launched_ranks
    from hpckit.store.create import create
    from hpckit.store.rundir import runs_root

    ranks = launched_ranks()
    if ranks is not None and ranks > 1:
        raise UsageError(
            f"{loaded.job.name} is a farm, and {ranks} ranks were launched: each would do all "
            "tasks. Start it once, with hpckit run"
        )
    run = create(loaded, sweep, root=runs_root(output), argv=sys.argv[1:], seed=seed)
    sys.exit(summarise(run, work(run, engine=None, workers=None, ranks=None)))
