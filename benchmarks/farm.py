"""A farm of no-op tasks: rate against multiprocessing.Pool.map, and memory a task."""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

from timing import header, row, wall

NOOP = "from hpckit import farm\n\n@farm\ndef noop(i: int = 0):\n    return i\n"
WORKERS = 2
TASKS = 100_000


def farm(folder: str, tasks: int) -> dict[str, float]:
    """Run the farm in a fresh process; return its rate and the driver's peak memory."""
    job = Path(folder, "noop.py")
    job.write_text(NOOP)
    output = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "hpckit", "run", str(job), f"i=range({tasks})"]
    spent = wall([*command, "--workers", str(WORKERS), "-o", str(output)])
    manifest = json.loads(next(output.glob("*/run.json")).read_text())
    return {
        "wall": spent,
        "rate": tasks / manifest["seconds"],
        "peak": manifest["usage"]["driver_peak_bytes"],
    }


def noop(i: int) -> int:
    """Do nothing."""
    return i


def pool_rate() -> float:
    """Return the tasks a second of multiprocessing.Pool.map in chunks, which stores nothing."""
    with multiprocessing.Pool(WORKERS) as pool:
        pool.map(noop, range(100))
        begun = time.perf_counter()
        pool.map(noop, range(TASKS), chunksize=1000)
        return TASKS / (time.perf_counter() - begun)


def main() -> None:
    """Print the table."""
    header()
    with tempfile.TemporaryDirectory() as folder:
        runs = [farm(folder, TASKS) for _ in range(5)]
        small = farm(folder, 1000)
        large = farm(folder, 1_000_000)
    rate = statistics.median(run["rate"] for run in runs)
    pool = statistics.median(pool_rate() for _ in range(5))
    row(
        f"{TASKS:,} no-op tasks, 2 processes, in results.h5",
        f"{rate:,.0f} tasks/s, all of the session in it ({rate / pool:.3f} of Pool.map, which "
        "stores nothing)",
        "> 100,000 tasks/s",
        rate > 100_000,
    )
    row(
        "1,000,000 of them",
        f"{large['rate']:,.0f} tasks/s, driver {large['peak'] / 2**20:.0f} MiB",
        "-",
        True,
    )
    grown = (large["peak"] - small["peak"]) / 999_000
    row("memory a task, from 1,000 to 1,000,000", f"{grown:.0f} B", "< 1000 B", grown < 1000)


if __name__ == "__main__":
    main()
