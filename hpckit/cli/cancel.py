"""hpckit cancel: the end of a run before its time."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import click

from hpckit.cli.options import output_option, run_argument
from hpckit.errors import UsageError
from hpckit.store.manifest import Manifest
from hpckit.store.submission import Submission
from hpckit.submit.scheduler import Scheduler

PATIENCE = 60.0
"""Seconds to wait for jobs that have been told to end: Slurm gives them 30."""


@click.command(help="End a run before its time; what is sealed stays.")
@run_argument
@output_option
def command(run: str, output: Path | None) -> None:
    """Cancel a run's jobs, or interrupt the process that works on it."""
    from hpckit.store import manifest as manifests
    from hpckit.store.manifest import State
    from hpckit.store.rundir import find, runs_root
    from hpckit.submit.scheduler import scheduler_of
    from hpckit.submit.settle import close, require_cluster, standings

    found = find(run, runs_root(output))
    standing = standings([found]).get(found)
    manifest = manifests.read(found.manifest)
    if manifest.submission is not None and standing is not None:
        if not standing.is_sure and standing.has_ended:
            require_cluster(found, manifest.submission)
        scheduler = scheduler_of(manifest.submission.site)
        scheduler.cancel(_ids(manifest.submission, scheduler))
        end = time.monotonic() + PATIENCE
        while not standing.has_ended and time.monotonic() < end:
            time.sleep(0.5)
            standing = standings([found]).get(found, standing)
        if not standing.has_ended:
            click.echo(f"{manifest.id}: its jobs are told to end, and have not yet", err=True)
            return
        manifest = close(found, standing)
    elif manifest.effective_state() is State.RUNNING:
        _interrupt(manifest)
        manifest = manifests.read(found.manifest)
    else:
        raise UsageError(f"{manifest.id}: is {manifest.effective_state()}, there is nothing to end")
    click.echo(f"{manifest.id}: {manifest.effective_state()}")


def _ids(submission: Submission, scheduler: Scheduler) -> list[str]:
    """Return the ids of a submission's jobs, and of those whose ids were lost."""
    tagged = scheduler.tagged().items()
    lost = [job for job, tag in tagged if tag.startswith(f"{submission.tag}:")]
    return list(dict.fromkeys([*submission.ids, *lost]))


def _interrupt(manifest: Manifest) -> None:
    """Send the process that works on a run what Ctrl-C sends, and wait for its end."""
    driver = manifest.driver
    assert driver is not None
    if driver.host != os.uname().nodename:
        raise UsageError(
            f"{manifest.id}: process {driver.pid} on {driver.host} works on it: cancel it there"
        )
    with suppress(ProcessLookupError):
        os.kill(driver.pid, signal.SIGINT)
    end = time.monotonic() + PATIENCE
    while not driver.is_gone() and time.monotonic() < end:
        time.sleep(0.1)
