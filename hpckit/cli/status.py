"""hpckit status: how far a run is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hpckit.cli.options import json_option, output_option, run_argument


@click.command(help="Say how far a run is.")
@run_argument
@output_option
@json_option
def command(run: str, output: Path | None, as_json: bool) -> None:
    """Print the state of a run and, while it goes on, its rate and the time left."""
    from hpckit.analyse.status import status
    from hpckit.cli.asking import looked_at

    found = status(*looked_at(run, output))
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1))
        return
    from hpckit.cli.console import print_facts

    print_facts([("run", found.id), *found.facts()])
