"""hpckit render: the batch script of a job."""

from __future__ import annotations

from pathlib import Path

import click

from hpckit import __version__
from hpckit.cli.contained import chosen_image, container_for, image_option
from hpckit.cli.means import Means
from hpckit.cli.options import gpus_option, output_option
from hpckit.errors import UsageError


@click.command(help="Print the batch script of a job; `sbatch` runs it as it is.")
@click.argument("job")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--site", help="A site's name or TOML file  [default: $HPCKIT_SITE]")
@click.option("--workers", type=click.IntRange(1), help="A farm's tasks at a time.")
@click.option("--ranks", type=click.IntRange(1), help="Ranks of an spmd job  [default: its ntasks]")
@click.option("--tasks", type=click.Path(path_type=Path), help="A CSV file, a row a task.")
@click.option("--seed", type=click.IntRange(0), help="Seed of all random streams.")
@gpus_option
@image_option
@output_option
def command(
    job: str,
    parameters: tuple[str, ...],
    site: str | None,
    workers: int | None,
    ranks: int | None,
    tasks: Path | None,
    seed: int | None,
    gpus_per_task: int | None,
    image: str | None,
    output: Path | None,
) -> None:
    """Render a job's script."""
    from hpckit.render.batch import Work, batch_script
    from hpckit.render.script import render
    from hpckit.spec.load import load_job
    from hpckit.spec.site import load_site
    from hpckit.spec.sweep import Sweep
    from hpckit.store.rundir import runs_root

    where = load_site(site)
    loaded = load_job(job).with_gpus(gpus_per_task)
    sweep = Sweep.from_args(loaded.job, list(parameters), tasks)
    Means(workers=workers, ranks=ranks).require_fitting(loaded.job)
    if sweep.table is not None and loaded.job.kind == "spmd":
        raise UsageError("--tasks: an spmd job runs one point: give it as NAME=VALUE")
    arguments = [f"{name}={text}" for name, text in sweep.assignments.items()]
    if sweep.table is not None:
        arguments += ["--tasks", str(sweep.table)]
    if seed is not None:
        arguments += ["--seed", str(seed)]
    if gpus_per_task is not None:
        arguments += ["--gpus-per-task", str(gpus_per_task)]
    arguments += ["--output", str(runs_root(output).absolute())]
    asked = loaded.job
    if ranks is not None:
        resources = asked.resources.updated(ntasks=ranks)
        asked = asked.model_copy(update={"resources": resources})
    contained = chosen_image(image, loaded, where)
    container = container_for(loaded, sweep, contained, runs_root(output), where.binds)
    work = Work(asked, loaded.source, arguments, len(sweep), container)
    click.echo(render(batch_script(work, where, workers), where, __version__), nl=False)
