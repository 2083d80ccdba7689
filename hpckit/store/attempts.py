"""How often the tasks of a farm were tried before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpckit.store.blockfile import DETAILS
from hpckit.store.reading import reading
from hpckit.store.rundir import RunDir
from hpckit.store.segments import list_segments


def earlier_attempts(run: RunDir, tasks: int) -> NDArray[np.int32]:
    """Return the attempts at each task that are sealed; shape (tasks,)."""
    tried = np.zeros(tasks, np.int32)
    results = [run.results] if run.results.is_file() else []
    for path in [*results, *(segment.path for segment in list_segments(run.segments))]:
        with reading(path) as file:
            if f"{DETAILS}/attempts" not in file:
                continue  # Not one task of it has come to an end.
            task = file["task"][()]
            # A missing task's fill value is below zero.
            tried[task] = np.maximum(tried[task], file[f"{DETAILS}/attempts"][()])
    return tried
