"""hpckit resume: what is missing of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from hpckit.cli.again import Again, again_options, go_on, open_again
from hpckit.cli.options import run_argument
from hpckit.threads import limit_threads


@click.command(help="End what is missing of a run.")
@run_argument
@again_options
@click.option("--ranks", type=click.IntRange(1), help="Another number of ranks.")
def command(run: str, output: Path | None, **options: Any) -> NoReturn:
    """Resume a run."""
    limit_threads(1)
    from hpckit.store.block import TaskState

    found = open_again(run, output)
    states = frozenset({TaskState.MISSING})
    sys.exit(go_on(found, Again.of(options), states, complete="nothing is missing"))
