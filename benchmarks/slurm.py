"""Slurm, on the cluster that this shell knows: submitting, asking, and an array's efficiency.

    tests/cluster/slurm up; eval "$(tests/cluster/slurm env)"; python benchmarks/slurm.py FOLDER

FOLDER is one that all nodes see.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
from timing import header, row, wall

JOB = """
import time
from hpckit import farm

@farm(mem="100M", walltime="10m")
def nap(n: int = 0, ms: int = 0):
    time.sleep(ms / 1000)
    return n
"""
RUNS, TASKS, NODES, CORES = 1000, 20_000, 4, 4


def main(folder: Path) -> None:
    """Print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nap.py").write_text(JOB)
    header()
    _submit(folder)
    _ask(folder)
    _array(folder)


def hpckit(*arguments: object) -> list[str]:
    """Return a command line."""
    return [sys.executable, "-m", "hpckit", *map(str, arguments)]


def _submit(folder: Path) -> None:
    runs = folder / "large"
    seconds = wall(hpckit("submit", "nap.py", "n=range(100000)", "-o", runs), cwd=folder)
    subprocess.run(hpckit("wait", "last", "-o", runs), cwd=folder, check=True, capture_output=True)
    files = sum(1 for _ in next(runs.iterdir()).rglob("*"))
    row("100,000 tasks submitted", f"{seconds:.2f} s", "< 3 s", seconds < 3)
    row("files and folders of that run at its end", str(files), "a few hundred", files < 500)


def _ask(folder: Path) -> None:
    """Make a thousand submitted runs of one, whose jobs the scheduler has forgotten."""
    first = next((folder / "large").iterdir())
    manifest = json.loads((first / "run.json").read_text())
    many = folder / "many"
    shutil.rmtree(many, ignore_errors=True)
    for number in range(RUNS):
        run = many / f"nap-20260101-{number:06d}-beef"
        (run / "segments").mkdir(parents=True)
        jobs = [{"id": str(1_000_000 + number)}]
        latest = {**manifest["submissions"][-1], "elements": None, "jobs": jobs, "outcome": {}}
        changed = {"id": run.name, "state": "submitted", "counts": {}, "submissions": [latest]}
        (run / "run.json").write_text(json.dumps({**manifest, **changed}))
    seconds = wall(hpckit("ls", "-o", many), cwd=folder)
    row(f"`ls` over {RUNS} submitted runs", f"{seconds:.2f} s", "< 2 s", seconds < 2)


def _array(folder: Path) -> None:
    runs = folder / "naps"
    shutil.rmtree(runs, ignore_errors=True)
    shares = ("--elements", NODES, "--workers", CORES, "-o", runs)
    submit = hpckit("submit", "nap.py", f"n=range({TASKS})", "ms=10", *shares)
    subprocess.run(submit, cwd=folder, check=True, capture_output=True)
    subprocess.run(hpckit("wait", "last", "-o", runs), cwd=folder, check=True, capture_output=True)
    with h5py.File(next(runs.glob("*/results.h5"))) as file:
        start, duration = file["tasks/start"][()], file["tasks/duration"][()]
    spent = (start + duration).max() - start.min()
    share = TASKS * 0.01 / (NODES * CORES) / spent
    what = f"{TASKS:,} tasks of 10 ms on {NODES} nodes × {CORES}, share of the ideal time"
    row(what, f"{share:.1%}", "≥ 90 %", share >= 0.9)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
