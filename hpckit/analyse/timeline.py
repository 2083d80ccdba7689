"""When a farm's tasks were at work, and how many workers there were."""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.errors import UsageError
from hpckit.store.reading import damage_explained
from hpckit.store.rundir import RunDir, require_results
from hpckit.store.trace import read_trace

Steps = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Times in seconds since the first task began, and the value from each on."""


@dataclass(frozen=True)
class Timeline:
    """The course of a farm.

    Attributes
    ----------
    busy
        Tasks at work.
    ended
        Tasks that had ended.
    trace
        Workers wanted, queued and running, by name; empty where they did not come and go.
    """

    busy: Steps
    ended: Steps
    trace: dict[str, Steps]


def timeline(run: RunDir) -> Timeline:
    """Return the course of a farm whose results are there.

    Raises
    ------
    UsageError
        It is no farm, or no task was timed.
    StoreError
        Its results do not read.
    """
    path = require_results(run)
    with damage_explained(path), h5py.File(path) as file:
        if "tasks/start" not in file:
            raise UsageError(f"{run.id}: has no times of tasks: only farms have a course to draw")
        start, seconds = file["tasks/start"][()], file["tasks/duration"][()]
    known = np.isfinite(start) & np.isfinite(seconds)
    if not known.any():
        raise UsageError(f"{run.id}: none of its tasks has been timed")
    begin = float(start[known].min())
    starts = np.sort(start[known] - begin)
    ends = np.sort(start[known] + seconds[known] - begin)
    return Timeline(
        _balance(starts, ends),
        (ends, np.arange(1.0, len(ends) + 1)),
        _trace(run, begin, float(ends[-1])),
    )


def _balance(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> Steps:
    """Return how many have begun and not ended, at each time that this changes."""
    times = np.concatenate([starts, ends])
    changes = np.concatenate([np.ones(len(starts)), -np.ones(len(ends))])
    # What ends at a moment makes room for what begins then.
    order = np.lexsort((changes, times))
    return times[order], np.cumsum(changes[order])


def _trace(run: RunDir, begin: float, end: float) -> dict[str, Steps]:
    """Return the workers' numbers; the last ones hold until the last task has ended."""
    rows = read_trace(run.workers)
    if not len(rows):
        return {}
    times = rows[:, 0] - begin
    if times[-1] < end:
        times, rows = np.append(times, end), np.vstack([rows, rows[-1:]])
    return {name: (times, rows[:, 1 + i]) for i, name in enumerate(("wanted", "queued", "running"))}
