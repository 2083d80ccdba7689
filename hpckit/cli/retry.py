"""hpckit retry: the failed tasks of a farm."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from hpckit.cli.again import Again, again_options, go_on, open_again
from hpckit.cli.options import run_argument
from hpckit.errors import UsageError
from hpckit.threads import limit_threads


@click.command(help="Do the failed tasks of a farm again, and those that are missing.")
@run_argument
@again_options
def command(run: str, output: Path | None, **options: Any) -> NoReturn:
    """Retry a run."""
    limit_threads(1)
    from hpckit.store.block import TaskState

    found = open_again(run, output)
    if found.job.kind != "farm":
        name = found.manifest.id
        raise UsageError(f"{name}: has no tasks: `hpckit resume {name}` goes on")
    states = frozenset({TaskState.MISSING, TaskState.FAILED})
    sys.exit(go_on(found, Again.of(options), states, complete="no task has failed"))
