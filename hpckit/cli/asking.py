"""Questions to a scheduler whose failure is told, and does not end a command."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click

from hpckit.errors import BusyError, LaunchError, UsageError
from hpckit.jobstates import Standing
from hpckit.store.rundir import RunDir, find, runs_root
from hpckit.submit.settle import close, standings


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


def find_settled(ref: str, output: Path | None) -> RunDir:
    """Return the run that is meant, as of the end of its jobs if they have ended.

    Raises
    ------
    UsageError, StoreError
        As `looked_at`.
    """
    return looked_at(ref, output)[0]
