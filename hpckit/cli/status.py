"""hpckit status: how far a run is."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpckit.cli.options import json_option, output_option, run_argument
from hpckit.errors import UsageError

if TYPE_CHECKING:
    from hpckit.analyse.status import Status

HERE_SECONDS, QUEUED_SECONDS = 1.0, 5.0
"""Between two looks at a run in the foreground, and at one that a scheduler is asked about."""

REDRAW = "\x1b[{lines}F\x1b[J"
"""To the beginning of so many lines above, and clear all from there (ECMA-48: CPL, ED)."""


@click.command(help="Say how far a run is.")
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Show it anew until the run has ended.")
@output_option
@json_option
def command(run: str, follow: bool, output: Path | None, as_json: bool) -> None:
    """Print the state of a run and, while it goes on, its rate and the time left."""
    if follow and as_json:
        raise UsageError("--follow is for people: ask with --json again and again")
    found = _look(run, output)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1))
        return
    shown = _show(found, 0)
    while follow and found.state.is_open:
        time.sleep(HERE_SECONDS if found.standing is None else QUEUED_SECONDS)
        found = _look(run, output)
        shown = _show(found, shown)


def _look(run: str, output: Path | None) -> Status:
    from hpckit.analyse.status import status
    from hpckit.cli.asking import looked_at

    return status(*looked_at(run, output))


def _show(found: Status, before: int) -> int:
    """Print what there is to say in place of the lines before, if any; return how many it has."""
    from hpckit.cli.console import fact_lines

    lines = fact_lines([("run", found.id), *found.facts()])
    above = REDRAW.format(lines=before) if before and sys.stdout.isatty() else ""
    click.echo(above + "\n".join(lines))
    return len(lines)
