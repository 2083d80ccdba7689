"""hpckit run: a job here, in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from hpckit.cli.contained import chosen_image, enter_for, image_option
from hpckit.cli.foreground import summarise, work_new
from hpckit.cli.means import Means, means_options, refuse_rules
from hpckit.cli.options import gpus_option, output_option, rules_options
from hpckit.threads import limit_threads


@click.command(help="Run a job here, in the foreground.")
@click.argument("job")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@means_options
@click.option(
    "--site", "on_site", help="Of the engine dask: have its workers in batch jobs of this cluster."
)
@click.option("--ranks", type=click.IntRange(1), help="Ranks of an spmd job  [default: its ntasks]")
@click.option("--tasks", type=click.Path(path_type=Path), help="A CSV file, a row a task.")
@click.option("--seed", type=click.IntRange(0), help="Seed of all random streams.")
@gpus_option
@rules_options
@image_option
@output_option
def command(
    job: str,
    parameters: tuple[str, ...],
    tasks: Path | None,
    seed: int | None,
    gpus_per_task: int | None,
    image: str | None,
    output: Path | None,
    **options: Any,
) -> NoReturn:
    """Run a job to its end."""
    # Before the job file brings NumPy in, whose BLAS reads these when it loads.
    limit_threads(1)
    from hpckit.spec.load import load_job
    from hpckit.spec.sweep import Sweep
    from hpckit.store import create
    from hpckit.store.rundir import runs_root

    loaded = load_job(job).with_gpus(gpus_per_task)
    sweep = Sweep.from_args(loaded.job, list(parameters), tasks)
    means = Means.taken_from(options)
    refuse_rules(loaded.job, options)
    rules = loaded.job.rules.updated(options)
    means.require_fitting(loaded.job, rules)
    root, contained = runs_root(output), chosen_image(image, loaded)
    if means.elastic() is None:
        enter_for(loaded, sweep, contained, root)
    run = create.create(
        loaded,
        sweep,
        root=root,
        argv=sys.argv[1:],
        seed=seed,
        rules=rules,
        image=contained,
    )
    final = work_new(run, means)
    sys.exit(summarise(run, final))
