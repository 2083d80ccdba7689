"""hpckit pilot: workers for the driver of a run; its batch scripts call it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from hpckit.threads import limit_threads


@click.command(help="Hold workers for the driver of a run, which has submitted this.", hidden=True)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--driver", metavar="TOKEN", required=True, help="Which of the run's drivers it is.")
@click.option("--slots", type=click.IntRange(1), default=1, help="Tasks at a time.")
@click.option("--walltime", type=click.FloatRange(0), help="Seconds that the job asks for.")
def command(run: Path, driver: str, slots: int, walltime: float | None) -> NoReturn:
    """Work until the driver ends this, is gone, or the time is nearly up."""
    from hpckit.store import manifest as manifests
    from hpckit.store.rundir import RunDir

    directory = RunDir(run)
    limit_threads(manifests.read(directory.manifest).job.resources.cpus_per_task)
    from hpckit.run.engines.dask_pilot import job_id, pilot
    from hpckit.run.engines.pilots import begins_until

    log = directory.log(f"pilot-{job_id()}-worker-{{pid}}")
    until = begins_until(walltime, os.environ)
    pilot(directory.contact, driver, log, slots, until)
    sys.exit(0)
