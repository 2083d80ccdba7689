"""hpckit export: a run for others, in a form that is not hpckit's own."""

from __future__ import annotations

from pathlib import Path

import click

from hpckit.cli.options import run_argument


@click.command(help="Write a run for others: as an RO-Crate.")
@run_argument
@click.option("--to", type=click.Choice(["rocrate"]), required=True, help="The form.")
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="A folder, or a file NAME.zip  [default: RUN-rocrate]")  # fmt: skip
@click.option(
    "--license",
    metavar="URL",
    help="Of the terms under which you give it away  [default: all rights reserved]",
)
def command(run: str, to: str, output: Path | None, license: str | None) -> None:
    """Export a run."""
    from hpckit.analyse.crate import write_crate
    from hpckit.cli.asking import find_settled
    from hpckit.store.create import reopen
    from hpckit.store.rundir import require_results

    found = find_settled(run, None)
    require_results(found)
    target = output or Path(f"{found.id}-{to}")
    write_crate(reopen(found), target, license)
    click.echo(target)
