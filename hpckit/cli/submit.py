"""hpckit submit: a job to the site's scheduler."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpckit.cli.contained import chosen_image, container_for, image_option
from hpckit.cli.means import Means, refuse_rules
from hpckit.cli.options import (
    gpus_option,
    json_option,
    output_option,
    resource_options,
    rules_options,
    site_option,
)
from hpckit.errors import UsageError
from hpckit.spec.messages import counted
from hpckit.threads import limit_threads

if TYPE_CHECKING:
    from hpckit.spec.job import Job
    from hpckit.spec.load import LoadedJob
    from hpckit.spec.resources import Resources
    from hpckit.spec.site import Site
    from hpckit.spec.sweep import Sweep
    from hpckit.store.image import ImageRecord
    from hpckit.store.manifest import Manifest
    from hpckit.submit.handover import Wish


@click.command(help="Submit a job to a cluster's scheduler.")
@click.argument("job")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@site_option
@click.option("--partition", metavar="NAME", help="Of the site  [default: the first that fits]")
@click.option(
    "--engine",
    type=click.Choice(["dask"]),
    help="Its workers are jobs of their own, which come and go with the work that is left.",
)
@click.option("--min-workers", type=click.IntRange(0), help="Of the engine dask: at least.")
@click.option("--max-workers", type=click.IntRange(1), help="At most  [default: 100]")
@click.option("--elements", type=click.IntRange(1), help="Array elements that share the tasks.")
@click.option("--workers", type=click.IntRange(1), help="Tasks at a time in each element.")
@click.option("--max-running", type=click.IntRange(1), help="Elements at a time.")
@click.option("--ranks", type=click.IntRange(1), help="Ranks of an spmd job  [default: its ntasks]")
@resource_options
@gpus_option
@click.option("--tasks", type=click.Path(path_type=Path), help="A CSV file, a row a task.")
@click.option("--seed", type=click.IntRange(0), help="Seed of all random streams.")
@rules_options
@click.option("--after", metavar="RUN", multiple=True, help="Begin once this run has ended well.")
@click.option("--hold", is_flag=True, help="Leave it held: `scontrol release` lets it begin.")
@click.option("--sbatch", metavar="NAME[=VALUE]", multiple=True, help="A further option of sbatch.")
@click.option("--dry-run", is_flag=True, help="Print the script, and have sbatch check it alone.")
@image_option
@output_option
@json_option
def command(
    job: str,
    parameters: tuple[str, ...],
    site: str | None,
    partition: str | None,
    engine: str | None,
    min_workers: int | None,
    max_workers: int | None,
    elements: int | None,
    workers: int | None,
    max_running: int | None,
    ranks: int | None,
    walltime: str | None,
    mem: str | None,
    gpus_per_task: int | None,
    tasks: Path | None,
    seed: int | None,
    after: tuple[str, ...],
    hold: bool,
    sbatch: tuple[str, ...],
    dry_run: bool,
    image: str | None,
    output: Path | None,
    as_json: bool,
    **rules: Any,
) -> None:
    """Submit a job, print its run's id, and return."""
    limit_threads(1)
    from hpckit.cli.elastic import elastic_on
    from hpckit.render.submission import checked_options
    from hpckit.spec.load import load_job
    from hpckit.spec.site import load_site
    from hpckit.spec.sweep import Sweep
    from hpckit.store import create
    from hpckit.store.rundir import runs_root
    from hpckit.submit.handover import Wish, submit_new

    loaded = load_job(job).with_gpus(gpus_per_task)
    sweep = Sweep.from_args(loaded.job, list(parameters), tasks)
    means = Means(engine, workers, ranks, min_workers=min_workers, max_workers=max_workers)
    means.require_fitting(loaded.job)
    refuse_rules(loaded.job, rules)
    if elements or max_running:
        _require_array(loaded.job, engine)
    if dry_run and as_json:
        raise UsageError("--dry-run prints the script: leave --json")
    where = load_site(site)
    wish = Wish(
        resources=asked(loaded.job.resources, ranks=ranks, walltime=walltime, mem=mem),
        elements=elements,
        workers=workers,
        max_running=max_running,
        partition=partition,
        after=_after(after, output),
        hold=hold,
        options=checked_options(sbatch),
        elastic=elastic_on(where, min_workers, max_workers, workers) if engine else None,
    )
    contained = chosen_image(image, loaded, where)
    if dry_run:
        _show(loaded, sweep, where, wish, runs_root(output), contained)
        return
    run = create.create(
        loaded,
        sweep,
        root=runs_root(output),
        argv=sys.argv[1:],
        seed=seed,
        rules=loaded.job.rules.updated(rules),
        image=contained,
    )
    tell(submit_new(run, where, wish), as_json=as_json)


def _require_array(job: Job, engine: str | None) -> None:
    """Refuse what sizes an array where there will be none.

    Raises
    ------
    UsageError
        There will be none.
    """
    if job.kind == "spmd":
        raise UsageError("--elements and --max-running are for farms: an spmd job is one job")
    if engine is not None:
        raise UsageError("--elements and --max-running are for arrays: leave --engine")


def asked(
    resources: Resources, *, ranks: int | None = None, walltime: str | None, mem: str | None
) -> Resources:
    """Return resources with what the command line says in place of the job's own.

    Raises
    ------
    SpecError
        A value is not allowed.
    """
    given: dict[str, object] = {"ntasks": ranks, "walltime": walltime, "mem": mem}
    changes = {name: value for name, value in given.items() if value is not None}
    if mem is not None and resources.mem_per_cpu is not None:
        changes["mem_per_cpu"] = None
    return resources.updated(**changes) if changes else resources


def tell(manifest: Manifest, *, as_json: bool = False) -> None:
    """Say what was submitted."""
    latest = manifest.submissions[-1]
    if as_json:
        told = {"id": manifest.id, "jobs": latest.ids, "elements": latest.elements}
        click.echo(json.dumps(told, indent=1))
        return
    jobs = " and ".join(latest.ids)
    what = f"job {jobs}"
    if manifest.elastic is not None:
        most = counted(manifest.elastic.most, "worker")
        what = f"job {jobs}, the driver of {counted(latest.tasks, 'task')} on up to {most}"
    elif latest.elements is not None:
        array = "array" if len(latest.ids) == 1 else "arrays"
        shares = f"{counted(latest.tasks, 'task')} in {counted(latest.elements, 'element')}"
        what = f"{array} {jobs}, {shares} of {counted(latest.workers, 'worker')}"
    click.echo(f"{manifest.id}: {what}")


def _after(refs: Sequence[str], output: Path | None) -> list[str]:
    """Return the ids of the jobs of other runs, which must end well first."""
    from hpckit.store.manifest import State
    from hpckit.store.rundir import find, runs_root
    from hpckit.submit.settle import settled

    jobs: list[str] = []
    for ref in refs:
        manifest = settled(find(ref, runs_root(output)))
        if manifest.state is State.COMPLETED:
            continue
        if manifest.submission is None:
            raise UsageError(f"--after {ref}: it is {manifest.state}, and will not end well")
        jobs += manifest.submission.ids
    return jobs


def _show(
    loaded: LoadedJob,
    sweep: Sweep,
    site: Site,
    wish: Wish,
    root: Path,
    image: ImageRecord | None,
) -> None:
    """Print the script, and what sbatch says of it."""
    from hpckit.render.container import require_sources
    from hpckit.store.rundir import RunDir
    from hpckit.submit.handover import plan, script_text
    from hpckit.submit.scheduler import scheduler_of

    if image is not None:
        require_sources(site.binds)
    run = RunDir(root.absolute() / f"{loaded.job.name}-dry-run")
    container = container_for(loaded, sweep, image, root, site.binds)
    text = script_text(plan(run, loaded.job, 1, site, wish, len(sweep), container), site)
    click.echo(text, nl=False)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "job.sh"
        script.write_text(text)
        click.echo(scheduler_of(site).check(script, []), err=True)
