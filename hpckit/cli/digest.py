"""hpckit digest: a hash of results."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hpckit.cli.options import json_option, output_option


@click.command(help="Print a hash of a run's results.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@output_option
@json_option
def command(runs: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Print the sha256 of the results of runs: equal where the results are."""
    from hpckit.cli.asking import find_settled
    from hpckit.store.digest import combined, variable_digests
    from hpckit.store.rundir import require_results

    found = [find_settled(run, output) for run in runs]
    paths = [require_results(run) for run in found]
    entries = []
    for run, path in zip(found, paths, strict=True):
        variables = variable_digests(path)
        entries.append({"id": run.id, "digest": combined(variables), "variables": variables})
        if not as_json:
            click.echo(f"{entries[-1]['digest']}  {run.id}")
    if as_json:
        click.echo(json.dumps(entries, indent=1))
