"""hpckit ls: the runs of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hpckit.cli.options import json_option, output_option


@click.command(help="List the runs.")
@output_option
@json_option
def command(output: Path | None, as_json: bool) -> None:
    """List runs, the newest last."""
    from hpckit.analyse.listing import listed
    from hpckit.cli.asking import standings_told
    from hpckit.store.rundir import list_runs, runs_root

    root = runs_root(output)
    there = list_runs(root)
    runs = listed(there, standings_told(there))
    if as_json:
        click.echo(json.dumps([run.to_json() for run in runs], indent=1))
        return
    if not runs:
        click.echo(f"no runs in {root} (another folder: --output, or $HPCKIT_RUNS)")
        return
    from hpckit.analyse.tables import Column, Table, without_empty
    from hpckit.cli.console import print_table

    columns = (
        Column("run"),
        Column("state"),
        Column("work", number=True),
        Column("failed", number=True),
        Column("when", optional=True),
        Column("time", number=True, optional=True),
        Column("job", optional=True),
    )
    print_table(without_empty(Table(columns, [run.cells() for run in runs])))
    for run in runs:
        if run.problem:
            click.echo(run.problem, err=True)
