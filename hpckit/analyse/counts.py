"""How many tasks of a run are done."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from hpckit.errors import StoreError
from hpckit.spec.messages import counted
from hpckit.store.block import TaskState
from hpckit.store.manifest import Manifest
from hpckit.store.results import task_states
from hpckit.store.rundir import RunDir
from hpckit.store.segments import list_segments

ATTEMPTS, PAUSE_SECONDS = 8, 0.05
"""How often a run that is being worked on is looked at, and the time between."""


@dataclass(frozen=True)
class Counts:
    """Tasks of a farm that are sealed as done or failed, and all of them."""

    done: int
    failed: int
    total: int

    @property
    def missing(self) -> int:
        """The tasks without a result."""
        return self.total - self.done - self.failed

    def __str__(self) -> str:
        text = f"{self.done} of {self.total} done"
        text += f", {self.failed} failed" if self.failed else ""
        return text + (f", {self.missing} missing" if self.missing else "")


def sealed_counts(run: RunDir, manifest: Manifest) -> Counts:
    """Count what is sealed of a farm; a run that goes on may be looked at too.

    Raises
    ------
    StoreError
        A sealed file does not read back.
    """
    total = manifest.job.tasks
    for attempt in range(ATTEMPTS):
        try:
            # The manifest's counts hold as long as nothing was sealed after them.
            if manifest.counts and not list_segments(run.segments):
                counts = manifest.counts
                return Counts(counts.get("done", 0), counts.get("failed", 0), total)
            states = task_states(run, total)
            found = np.bincount(states, minlength=len(TaskState))
            return Counts(int(found[TaskState.DONE]), int(found[TaskState.FAILED]), total)
        except (StoreError, FileNotFoundError):
            # The driver merges segments while we look: what was listed may be gone.
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE_SECONDS)
    raise AssertionError


def left_out(manifest: Manifest, counts: Counts | None) -> str | None:
    """Say how many tasks are not in what a farm's results were merged into."""
    if manifest.job.reduce is None or counts is None or counts.done == counts.total:
        return None
    rest = counts.total - counts.done
    return f"{counts.done} of {counts.total} tasks: {counted(rest, 'task')} left out"
