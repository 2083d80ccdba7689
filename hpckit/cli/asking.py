"""Questions to a scheduler whose failure is told, and does not end a command."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click

from hpckit.errors import BusyError, LaunchError, UsageError
from hpckit.jobstates import Standing
from hpckit.store.rundir import RunDir, find, runs_root
from hpckit.submit.settle import close, settled, standings


def find_settled(ref: str, output: Path | None) -> RunDir:
    """Return the run that is meant, ended if its jobs have ended.

    Where the scheduler cannot be asked that is said, and the run is as it was.

    Raises
    ------
    UsageError
        There is no such run.
    """
    run = find(ref, runs_root(output))
    try:
        settled(run)
    except (UsageError, LaunchError) as error:
        click.echo(f"hpckit: {run.id} is as it was when last seen: {error}", err=True)
    return run


def standings_told(runs: Iterable[RunDir]) -> dict[RunDir, Standing]:
    """Return the same, or tell that the scheduler cannot be asked and return nothing."""
    try:
        return standings(runs)
    except (UsageError, LaunchError) as error:
        click.echo(f"hpckit: how submitted runs stand is not known: {error}", err=True)
        return {}


def looked_at(ref: str, output: Path | None) -> tuple[RunDir, Standing | None]:
    """Return the run that is meant and how its jobs stand, None once they count as ended.

    Raises
    ------
    UsageError
        There is no such run.
    StoreError
        Something of it does not read back, or results cannot be written.
    """
    run = find(ref, runs_root(output))
    standing = standings_told([run]).get(run)
    if standing is not None and standing.is_sure:
        # If it is busy, somebody else closes it.
        with suppress(BusyError):
            close(run, standing)
            standing = None
    return run, standing
