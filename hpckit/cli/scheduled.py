"""What the batch scripts of a submitted run call: one rank, or one element of an array."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from hpckit.jobstates import TIME_IS_UP

if TYPE_CHECKING:
    from hpckit.store.create import Run
    from hpckit.store.rundir import RunDir

PATIENCE = 300.0
"""Seconds to wait for who submits the run still, or for ranks of before that end."""


def scheduled_rank(path: Path, session: int) -> NoReturn:
    """Be a rank of a program whose ranks a batch job starts."""
    from hpckit.cli.terminal import lines
    from hpckit.run.main import run_rank
    from hpckit.run.notice import TimeIsUp
    from hpckit.store import manifest as manifests
    from hpckit.store.rundir import RunDir

    name = manifests.read(RunDir(path).manifest).job.name
    with ExitStack() as held:
        try:
            run_rank(lambda: _taken(RunDir(path), session, held), lines(name))
        except TimeIsUp as stop:
            click.echo(f"hpckit: {stop}", err=True)
            sys.exit(TIME_IS_UP)
    sys.exit(0)


def _taken(directory: RunDir, session: int, held: ExitStack) -> Run:
    """Hold the run and mark it as running; for rank 0 alone."""
    from hpckit.store.create import reopen, require_unchanged
    from hpckit.store.lock import driving, join_ranks, wait_for_ranks
    from hpckit.store.provenance import machine

    held.enter_context(driving(directory, PATIENCE))
    wait_for_ranks(directory, PATIENCE)
    join_ranks(directory)
    found = reopen(directory)
    submission = found.manifest.open_session(session)
    require_unchanged(found)
    directory.remove_leftovers()
    directory.failure.unlink(missing_ok=True)
    manifest = found.manifest.started(
        ranks=submission.resources.ntasks,
        launcher=[submission.site.launcher],
        environment={**found.manifest.environment, **machine()},
    )
    manifest.write(directory.manifest)
    return replace(found, manifest=manifest)


def scheduled_element(path: Path, session: int, number: int, workers: int) -> NoReturn:
    """Be an element of an array whose elements share the tasks of a farm."""
    from hpckit.cli.elastic import pilots_for
    from hpckit.cli.terminal import lines
    from hpckit.run.element import open_element
    from hpckit.store.rundir import RunDir

    element = open_element(RunDir(path), session, number)
    elastic = element.run.manifest.elastic
    pilots = None if elastic is None else pilots_for(element.run, elastic)
    what = f"element {number}" if pilots is None else element.run.job.name
    sys.exit(element.work(element.place(workers, pilots), lines(what)))
