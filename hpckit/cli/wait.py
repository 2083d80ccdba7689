"""hpckit wait: until a run has ended."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from hpckit.cli.options import output_option, run_argument

if TYPE_CHECKING:
    from hpckit.cli.terminal import Terminal
    from hpckit.jobstates import Standing
    from hpckit.store.manifest import Manifest
    from hpckit.store.rundir import RunDir

FIRST_SECONDS, MOST_SECONDS = 1.0, 15.0
"""Between two questions: at first, and after a while."""


@click.command(help="Wait until a run has ended, and say how.")
@run_argument
@output_option
def command(run: str, output: Path | None) -> NoReturn:
    """Wait for a run; what its job's policy says about jobs that did not end well is done."""
    from hpckit.cli.foreground import summarise
    from hpckit.store.create import reopen
    from hpckit.store.manifest import State
    from hpckit.store.rundir import find, runs_root

    found = find(run, runs_root(output))
    manifest = wait_for(found)
    if manifest.state is State.COMPLETED or manifest.counts.get("failed"):
        sys.exit(summarise(reopen(found), manifest))
    click.echo(f"hpckit: {manifest.id}: {manifest.effective_state()}: {manifest.reason}", err=True)
    sys.exit(1)


def wait_for(run: RunDir) -> Manifest:
    """Wait until a run has ended and return its manifest.

    Raises
    ------
    LaunchError
        The scheduler does not answer.
    """
    from hpckit.cli.terminal import progress_shown
    from hpckit.store import manifest as manifests

    name = manifests.read(run.manifest).job.name
    pause = FIRST_SECONDS
    begun = time.monotonic()
    with progress_shown(name) as terminal:
        while (ended := _look(run, terminal, begun)) is None:
            time.sleep(pause)
            pause = min(1.2 * pause, MOST_SECONDS)
    return ended


def _look(run: RunDir, terminal: Terminal, begun: float) -> Manifest | None:
    """Show how far a run is; return its manifest if it has ended for good."""
    from hpckit.cli.settle import close, standing_at_end, standings
    from hpckit.store import manifest as manifests
    from hpckit.store.manifest import State

    standing = standings([run]).get(run)
    if standing is not None and standing.has_ended:
        return _go_on(run, close(run, standing), standing)
    manifest = manifests.read(run.manifest)
    ended = manifest.effective_state() not in (State.RUNNING, State.SUBMITTED)
    if standing is None and ended:
        return _go_on(run, manifest, standing_at_end(run, manifest))
    _show(run, manifest, terminal, time.monotonic() - begun)
    return None


def _go_on(run: RunDir, manifest: Manifest, standing: Standing | None) -> Manifest | None:
    """Return the manifest of a run whose jobs have ended, unless its policy has it go on."""
    from hpckit.cli.again import apply
    from hpckit.store.create import reopen
    from hpckit.store.manifest import State
    from hpckit.submit.policy import remedy

    if manifest.state is State.COMPLETED or standing is None:
        return manifest
    found = remedy(reopen(run).job.policy, manifest.submissions, standing)
    if found is None:
        return manifest
    apply(found, run)
    return None


def _show(run: RunDir, manifest: Manifest, terminal: Terminal, seconds: float) -> None:
    from hpckit.store.progress import Progress, read_progress

    if manifest.job.kind == "spmd":
        told = read_progress(run.progress)
        if told is not None:
            terminal.report(told)
        return
    from hpckit.analyse.counts import sealed_counts

    counts = sealed_counts(run, manifest)
    terminal.report(Progress(counts.done, counts.failed, counts.total, seconds))
