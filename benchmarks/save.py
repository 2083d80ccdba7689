"""run.save of 1 GiB against plain h5py into a contiguous dataset, both synced."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from timing import header, row

from hpckit.store.fields import Piece, RankFile, assemble_fields
from hpckit.store.rundir import create

ROWS = 1024
COLUMNS = 131_072
REPEATS = 9


def plain(folder: Path, array: np.ndarray) -> float:
    """Return the seconds of plain h5py."""
    path = folder / "plain.h5"
    begun = time.perf_counter()
    with h5py.File(path, "w") as file:
        file.create_dataset("u", data=array)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    spent = time.perf_counter() - begun
    path.unlink()
    return spent


def saved(folder: Path, array: np.ndarray) -> float:
    """Return the seconds of what run.save and the end of the run do."""
    run = create(folder, "save")
    begun = time.perf_counter()
    piece = Piece.of("u", array, (0, 0), array.shape, ("y", "x"), {}, 0)
    file = RankFile(run, 0)
    file.save(piece, array)
    file.seal()
    assemble_fields(run, [piece], {}, {}, "{}")
    spent = time.perf_counter() - begun
    run.rank_fields(0).unlink()
    return spent


def main() -> None:
    """Print the table."""
    array = np.random.default_rng(0).random((ROWS, COLUMNS))
    header()
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as name:
        folder = Path(name)
        pairs = [(plain(folder, array), saved(folder, array)) for _ in range(REPEATS + 1)][1:]
    # The disk's pace changes from second to second: each save is held against its neighbour.
    ratio = statistics.median(a / b for a, b in pairs)
    rate = statistics.median(1024 / b for _, b in pairs)
    row(
        "`run.save` of 1 GiB against plain h5py",
        f"{ratio:.2f} of it ({rate:.0f} MiB/s)",
        "≥ 0.70",
        ratio >= 0.7,
    )


if __name__ == "__main__":
    main()
