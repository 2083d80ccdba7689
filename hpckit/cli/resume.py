"""hpckit resume: what is missing of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from hpckit.cli.foreground import check_options, say_of_source, summarise, work
from hpckit.cli.options import output_option, run_argument
from hpckit.run.engines import ENGINES
from hpckit.threads import limit_threads


@click.command(help="End what is missing of a run.")
@run_argument
@click.option("--engine", type=click.Choice(list(ENGINES)), help="Another engine than before.")
@click.option("--workers", type=click.IntRange(1), help="Another number of workers than before.")
@click.option("--ranks", type=click.IntRange(1), help="Another number of ranks than before.")
@output_option
def command(
    run: str, engine: str | None, workers: int | None, ranks: int | None, output: Path | None
) -> NoReturn:
    """Resume a run."""
    limit_threads(1)
    from hpckit.store import create
    from hpckit.store.manifest import State
    from hpckit.store.rundir import find, runs_root

    reopened = create.reopen(find(run, runs_root(output)))
    manifest = reopened.manifest
    check_options(reopened.job.kind, engine or manifest.engine, workers, ranks)
    if manifest.state is State.COMPLETED and reopened.dir.results.is_file():
        click.echo(f"{manifest.id}: is complete, nothing is missing")
        sys.exit(0)
    again = create.take_up(reopened)
    say_of_source(again)
    final = work(again, engine=engine, workers=workers, ranks=ranks)
    sys.exit(summarise(again, final))
