"""results.h5 of a farm that goes on: what is done so far, for whoever looks at it."""

from __future__ import annotations

import time
from contextlib import suppress

from hpckit.errors import ReduceError, StoreError
from hpckit.store.create import Run
from hpckit.store.merging import Merge
from hpckit.store.results import show_so_far

LEAST_SECONDS = 30.0
"""Between two snapshots."""

SHARE = 0.05
"""Of a driver's time go into snapshots, at most."""


class Snapshots:
    """Takes a snapshot now and then."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._due = time.monotonic() + LEAST_SECONDS

    def take_if_due(self) -> None:
        """Write results.h5 from what is sealed, if the last one is old enough.

        One that cannot be written is left for the end, which tells why.
        """
        begun = time.monotonic()
        if begun < self._due:
            return
        run = self._run
        with suppress(StoreError, ReduceError):
            manifest, merge = run.manifest.to_public_json(), Merge.of(run.job)
            show_so_far(run.dir, run.sweep, manifest, run.job.attrs, merge)
        ended = time.monotonic()
        self._due = ended + max(LEAST_SECONDS, (ended - begun) / SHARE)
