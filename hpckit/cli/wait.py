"""hpckit wait: until a run has ended."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from hpckit.cli.options import output_option, run_argument
from hpckit.errors import BusyError, StoreError, UsageError
from hpckit.jobstates import JobState, Standing
from hpckit.store import manifest as manifests
from hpckit.store.manifest import Manifest, State
from hpckit.store.rundir import RunDir, find, runs_root

if TYPE_CHECKING:
    from hpckit.cli.terminal import Terminal

FIRST_SECONDS, MOST_SECONDS = 1.0, 15.0
"""Between two questions: at first, and after a while."""

PART_LOOKING = 0.2
"""Of the time may go into looking: on a large run that takes long itself."""

BOOKED_SECONDS, LOST_SECONDS = 2.0, 30.0
"""After which one asks once more for a job that failed, or that nobody knows: accounting lags."""


@click.command(help="Wait until a run has ended, and say how.")
@run_argument
@output_option
def command(run: str, output: Path | None) -> NoReturn:
    """Wait for a run; what its job's policy says about jobs that did not end well is done."""
    from hpckit.analyse.status import said
    from hpckit.cli.foreground import summarise
    from hpckit.store.create import reopen

    found = find(run, runs_root(output))
    manifest = wait_for(found)
    if manifest.state is State.COMPLETED or manifest.counts.get("failed"):
        sys.exit(summarise(reopen(found), manifest))
    told = said(str(manifest.effective_state()), manifest.reason)
    click.echo(f"hpckit: {manifest.id}: {told}", err=True)
    sys.exit(1)


def wait_for(run: RunDir) -> Manifest:
    """Wait until a run has ended and return its manifest.

    Raises
    ------
    UsageError
        This is another cluster than it was submitted to, or has no scheduler.
    """
    from hpckit.cli.terminal import progress_shown

    name = manifests.read(run.manifest).job.name
    with progress_shown(name) as terminal:
        return _Watch(run, terminal).to_the_end()


@dataclass
class _Watch:
    """A run that is waited for."""

    run: RunDir
    terminal: Terminal
    begun: float = field(default_factory=time.monotonic)
    told: str | None = None

    def to_the_end(self) -> Manifest:
        """Look again and again, more seldom after a while."""
        from hpckit.submit.client import NoAnswer

        pause = FIRST_SECONDS
        while True:
            began = time.monotonic()
            try:
                if (ended := self._look()) is not None:
                    return ended
            except BusyError:
                pass  # Somebody else closes it, or goes on with it.
            except NoAnswer as error:
                self._tell(f"Slurm does not answer: {error}")
            time.sleep(max(pause, (time.monotonic() - began) / PART_LOOKING))
            pause = min(1.2 * pause, MOST_SECONDS)

    def _look(self) -> Manifest | None:
        """Show how far the run is; return its manifest if it has ended for good."""
        from hpckit.submit.settle import close, standing_at_end, standings

        standing = standings([self.run]).get(self.run)
        if standing is not None and standing.has_ended:
            standing = self._asked_again(standing)
        if standing is not None and standing.has_ended:
            return self._go_on(close(self.run, standing), standing)
        manifest = manifests.read(self.run.manifest)
        ended = not manifest.effective_state().is_open
        if standing is None and ended:
            return self._go_on(manifest, standing_at_end(self.run, manifest))
        self._show(manifest, standing)
        return None

    def _asked_again(self, standing: Standing) -> Standing | None:
        """Return how jobs stand whose end is not clear, after a while."""
        from hpckit.submit.settle import require_cluster, standings

        if standing.is_sure and standing.trouble is not JobState.FAILED:
            return standing
        submission = manifests.read(self.run.manifest).submission
        if not standing.is_sure and submission is not None:
            require_cluster(self.run, submission)
        time.sleep(BOOKED_SECONDS if standing.is_sure else LOST_SECONDS)
        return standings([self.run]).get(self.run)

    def _go_on(self, manifest: Manifest, standing: Standing | None) -> Manifest | None:
        """Return the manifest of a run whose jobs have ended, unless its policy has it go on."""
        from hpckit.cli.again import apply
        from hpckit.store.create import reopen
        from hpckit.submit.policy import remedy

        if manifest.state is State.COMPLETED or standing is None:
            return manifest
        found = remedy(reopen(self.run).job.policy, manifest.submissions, standing)
        if found is None:
            return manifest
        try:
            apply(found, self.run)
        except BusyError:
            raise
        except UsageError as error:
            click.echo(f"hpckit: the policy cannot be applied: {error}", err=True)
            return manifest
        return None

    def _show(self, manifest: Manifest, standing: Standing | None) -> None:
        from hpckit.store.progress import Progress, read_progress

        if standing is not None and standing.waits_for and standing.state is JobState.PENDING:
            self._tell(f"pending: {standing.waits_for}")
            return
        if manifest.job.kind == "spmd":
            told = read_progress(self.run.progress)
            if told is not None:
                self.terminal.report(told)
            return
        from hpckit.analyse.counts import sealed_counts

        try:
            counts = sealed_counts(self.run, manifest)
        except StoreError:
            return  # Others seal, merge and collect all the time: the next look will do.
        spent = time.monotonic() - self.begun
        self.terminal.report(Progress(counts.done, counts.failed, counts.total, spent))

    def _tell(self, line: str) -> None:
        """Print a line if it is news."""
        if line != self.told:
            self.told = line
            click.echo(f"hpckit: {self.run.id}: {line}", err=True)
