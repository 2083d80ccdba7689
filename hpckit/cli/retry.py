"""hpckit retry: the failed tasks of a farm."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from hpckit.cli.foreground import check_options, say_of_source, summarise, work_farm_shown
from hpckit.cli.options import output_option, run_argument
from hpckit.errors import UsageError
from hpckit.run.engines import ENGINES
from hpckit.threads import limit_threads


@click.command(help="Do the failed tasks of a farm again, and those that are missing.")
@run_argument
@click.option("--engine", type=click.Choice(list(ENGINES)), help="Another engine than before.")
@click.option("--workers", type=click.IntRange(1), help="Another number of workers than before.")
@output_option
def command(run: str, engine: str | None, workers: int | None, output: Path | None) -> NoReturn:
    """Retry a run."""
    limit_threads(1)
    from hpckit.store import create
    from hpckit.store.block import TaskState
    from hpckit.store.manifest import State
    from hpckit.store.rundir import find, runs_root

    reopened = create.reopen(find(run, runs_root(output)))
    manifest = reopened.manifest
    if reopened.job.kind != "farm":
        raise UsageError(f"{manifest.id}: has no tasks: `hpckit resume {manifest.id}` goes on")
    check_options("farm", engine or manifest.engine, workers, None)
    if manifest.state is State.COMPLETED and reopened.dir.results.is_file():
        click.echo(f"{manifest.id}: is complete, no task has failed")
        sys.exit(0)
    again = create.take_up(reopened)
    say_of_source(again)
    states = frozenset({TaskState.MISSING, TaskState.FAILED})
    sys.exit(summarise(again, work_farm_shown(again, engine, workers, states)))
