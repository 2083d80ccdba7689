"""hpckit pack: results.h5 without the ranks' files."""

from __future__ import annotations

from pathlib import Path

import click

from hpckit.cli.options import output_option, run_argument


@click.command(help="Copy the fields of an spmd run into results.h5 itself.")
@run_argument
@output_option
def command(run: str, output: Path | None) -> None:
    """Make results.h5 one file that can be moved alone."""
    from hpckit.cli.asking import find_settled
    from hpckit.store import fields
    from hpckit.store.lock import driving
    from hpckit.store.rundir import require_results

    found = find_settled(run, output)
    path = require_results(found)
    with driving(found):
        names = fields.pack(found)
    if names:
        click.echo(f"{path}: holds {', '.join(names)} itself now")
    else:
        click.echo(f"{path}: holds everything itself already")
