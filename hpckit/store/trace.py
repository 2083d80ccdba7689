"""How many workers there were over the time of a run, in a small CSV."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpckit.store.progress import Muster

COLUMNS = ("time", *(column.name for column in fields(Muster)))
"""Seconds since 1970; then the fields of `Muster`."""


class MusterTrace:
    """Appends a row whenever the number of workers has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._latest: Muster | None = None

    def note(self, muster: Muster | None) -> None:
        """Write a row, if there is anything new."""
        if muster is None or muster == self._latest:
            return
        self._latest = muster
        # Losing it loses nothing of the results: a full disk must not end the run here.
        with suppress(OSError):
            is_new = not self.path.exists()
            with self.path.open("a") as file:
                if is_new:
                    file.write(",".join(COLUMNS) + "\n")
                file.write(",".join(map(str, (round(time.time(), 3), *astuple(muster)))) + "\n")


def read_trace(path: Path) -> NDArray[np.float64]:
    """Return the rows, shape (changes, len(COLUMNS)); none where there is no such file.

    A row that was half-written when its driver was killed is left out.
    """
    rows = []
    with suppress(OSError):
        for line in path.read_text(errors="replace").splitlines()[1:]:
            with suppress(ValueError):
                row = [float(word) for word in line.split(",")]
                rows += [row] if len(row) == len(COLUMNS) else []
    return np.array(rows, np.float64).reshape(-1, len(COLUMNS))
