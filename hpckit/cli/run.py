"""hpckit run: a job here, in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from hpckit.cli.foreground import check_options, summarise, work_new
from hpckit.cli.options import address_option, output_option, rules_options
from hpckit.run.engines import DEFAULT, ENGINES
from hpckit.threads import limit_threads


@click.command(help="Run a job here, in the foreground.")
@click.argument("job")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option(
    "--engine",
    type=click.Choice(list(ENGINES)),
    help=f"What executes a farm's tasks  [default: {DEFAULT}]",
)
@click.option("--workers", type=click.IntRange(1), help="Workers of a farm  [default: the cores]")
@address_option
@click.option("--ranks", type=click.IntRange(1), help="Ranks of an spmd job  [default: its ntasks]")
@click.option("--tasks", type=click.Path(path_type=Path), help="A CSV file, a row a task.")
@click.option("--seed", type=click.IntRange(0), help="Seed of all random streams.")
@rules_options
@output_option
def command(
    job: str,
    parameters: tuple[str, ...],
    engine: str | None,
    workers: int | None,
    address: str | None,
    ranks: int | None,
    tasks: Path | None,
    seed: int | None,
    output: Path | None,
    **rules: Any,
) -> NoReturn:
    """Run a job to its end."""
    # Before the job file brings NumPy in, whose BLAS reads these when it loads.
    limit_threads(1)
    from hpckit.spec.load import load_job
    from hpckit.spec.sweep import Sweep
    from hpckit.store import create
    from hpckit.store.rundir import runs_root

    loaded = load_job(job)
    sweep = Sweep.from_args(loaded.job, list(parameters), tasks)
    check_options(loaded.job.kind, engine, workers, ranks, rules, address)
    run = create.create(
        loaded,
        sweep,
        root=runs_root(output),
        argv=sys.argv[1:],
        seed=seed,
        rules=rules,
    )
    final = work_new(run, engine=engine, workers=workers, ranks=ranks, address=address)
    sys.exit(summarise(run, final))
