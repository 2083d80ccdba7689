"""Farms whose workers are batch jobs, on the cluster that this shell knows.

    tests/cluster/slurm up; eval "$(tests/cluster/slurm env)"; python benchmarks/pilots.py FOLDER

FOLDER is one that all nodes see; $HPCKIT_SITE is the site.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import h5py
import numpy as np
from numpy.typing import NDArray
from timing import header, row

JOB = """
import time
from hpckit import farm

@farm(mem="150M", walltime="10m")
def nap(n: int = 0, ms: float = 0.0):
    if ms:
        time.sleep(ms / 1000)
    return {"x": 2.0 * n}
"""
ROUNDS = 5
WORKERS = 8


def main(folder: Path) -> None:
    """Print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.py").write_text(JOB)
    header()
    _start(folder)
    _, ends = _farm(folder, 20_000, 10, WORKERS)
    share = _steady_rate(ends) / (WORKERS * 100)
    row("20,000 tasks of 10 ms: of the ideal rate", f"{share:.3f}", ">= 0.90", share >= 0.9)
    _, ends = _farm(folder, 200_000, 0, WORKERS)
    rate = _steady_rate(ends)
    row("200,000 tasks that do nothing", f"{rate:,.0f}/s", ">= 30,000/s", rate >= 30_000)


def _start(folder: Path) -> None:
    by_sbatch, by_hpckit = [], []
    for _ in range(ROUNDS):
        by_sbatch.append(_started_by_sbatch(folder))
        begun, ends = _farm(folder, 20, 1, 2)
        by_hpckit.append(float(ends[0]) - begun)
    more = median(by_hpckit) - median(by_sbatch)
    told = f"{median(by_hpckit):.1f} s, sbatch {median(by_sbatch):.1f} s"
    row("from typing to the first result", told, "5 s more at most", more <= 5)


def _started_by_sbatch(folder: Path) -> float:
    """Return how long a job takes to start, in an empty queue."""
    begun = time.time()
    argv = ["sbatch", "--wait", "-n1", "--wrap", "date +%s.%N > began"]
    subprocess.run(argv, cwd=folder, check=True, capture_output=True)
    return float((folder / "began").read_text()) - begun


def _farm(folder: Path, tasks: int, ms: float, most: int) -> tuple[float, NDArray[np.float64]]:
    """Run a farm; return when it was begun, and when its tasks ended, in their order."""
    begun = time.time()
    runs = folder / f"{tasks}-{begun}"
    argv = [sys.executable, "-m", "hpckit", "run", "job.py", f"n=range(1,{tasks + 1})", f"ms={ms}"]
    pilots = ["--engine", "dask", "--min-workers", most, "--max-workers", most, "--workers", 2]
    argv += [*map(str, pilots), "--output", str(runs)]
    subprocess.run(argv, cwd=folder, check=True, capture_output=True)
    (results,) = runs.glob("*/results.h5")
    with h5py.File(results) as file:
        return begun, np.sort(file["tasks/start"][()] + file["tasks/duration"][()])


def _steady_rate(ends: NDArray[np.float64]) -> float:
    """Return tasks a second between the first tenth and the last."""
    first, last = len(ends) // 10, len(ends) * 9 // 10
    return float((last - first) / (ends[last] - ends[first]))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
