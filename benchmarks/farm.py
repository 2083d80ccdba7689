"""Farms on every engine beside its peers: tasks a second, and how near to the ideal time.

hpckit's results go into results.h5, those of the peers nowhere. A rate is that of many tasks
without that of few, so that the start-up is told beside it; the peers' pools are warm. Two workers
everywhere; medians of `ROUNDS`, of fresh processes for hpckit.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import h5py
from peers import latency_of
from timing import header, row, wall

WORKERS = 2
ROUNDS = 3
FEW = 10

NOOP = "from hpckit import farm\n\n@farm\ndef noop(i: int = 0):\n    return i\n"
ARRAY = (
    "import numpy as np\nfrom hpckit import farm\n\nROW = np.arange(1000.0)\n\n"
    "@farm\ndef array(i: int = 0):\n    return ROW + i\n"
)
SPIN = (
    "import time\nfrom hpckit import farm\n\n@farm\ndef spin(i: int = 0):\n"
    "    end = time.perf_counter() + 0.001\n"
    "    while time.perf_counter() < end:\n        pass\n    return i\n"
)
NAP = (
    "import asyncio\nfrom hpckit import farm\n\n@farm\nasync def nap(i: int = 0):\n"
    "    await asyncio.sleep(0.1)\n    return i\n"
)
PLAIN = ("worker", "--concurrency", str(WORKERS), "--loglevel", "ERROR")

Peers: TypeAlias = dict[str, dict[str, float]]
"""By a peer's name, what it reaches by the measure."""

NOOP_TARGETS = {"processes": 1e6, "mpi": 7e5, "dask": 5e5, "celery": 2e5}
SPIN_TARGETS = {"processes": 0.98, "mpi": 0.96, "dask": 0.96}
ONE_PROCESS = ("serial", "threads")
"""Engines that show what one interpreter can do; nobody asks more of them."""


@dataclass(frozen=True)
class Farm:
    """A run that has ended.

    Attributes
    ----------
    seconds
        Of the whole command.
    peak
        The driver's memory in bytes.
    span
        Seconds from the first task's start to the last one's end.
    files
        How many it has left, beside logs.
    """

    seconds: float
    peak: float
    span: float
    files: int

    @classmethod
    def of(cls, path: Path, seconds: float) -> Farm:
        """Look at a run's directory, and check that it has all its tasks."""
        with h5py.File(path / "results.h5") as file:
            assert (file["task_state"][()] == 1).all()
            start, duration = file["tasks/start"][()], file["tasks/duration"][()]
        left = [p for p in path.rglob("*") if p.is_file() and p.parent.name != "logs"]
        peak = json.loads((path / "run.json").read_text())["usage"]["driver_peak_bytes"]
        return cls(seconds, peak, float((start + duration).max() - start.min()), len(left))


class Rate(NamedTuple):
    """How fast a farm is.

    Attributes
    ----------
    tasks
        A second, beyond the start-up.
    few, many
        Seconds of the whole command for `FEW` tasks, and for all.
    peak
        The driver's memory in bytes.
    """

    tasks: float
    few: float
    many: float
    peak: float

    def told(self) -> str:
        """Say it."""
        return (
            f"{self.tasks:,.0f} tasks/s, all in {self.many:.1f} s of which the start-up is "
            f"{self.few:.1f} s, driver {self.peak / 2**20:.0f} MiB"
        )


class Bench:
    """Runs farms in a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def run(self, text: str, tasks: int, engine: str, workers: int = WORKERS) -> Farm:
        """Run a farm in a fresh process."""
        job = self.folder / "job.py"
        job.write_text(text)
        output = self.folder / "runs"
        shutil.rmtree(output, ignore_errors=True)
        command = [sys.executable, "-m", "hpckit", "run", str(job), f"i=range({tasks})"]
        options = ["--engine", engine, "-o", str(output)]
        if engine != "serial":
            options += ["--workers", str(workers)]
        seconds = wall([*command, *options])
        (path,) = output.iterdir()
        return Farm.of(path, seconds)

    def rate(self, text: str, tasks: int, engine: str) -> Rate:
        """Measure the rate of a farm."""
        few = statistics.median(self.run(text, FEW, engine).seconds for _ in range(ROUNDS))
        farms = [self.run(text, tasks, engine) for _ in range(ROUNDS)]
        many = statistics.median(farm.seconds for farm in farms)
        peak = max(farm.peak for farm in farms)
        return Rate((tasks - FEW) / (many - few), few, many, peak)


@contextmanager
def running(command: Sequence[str], folder: str, seconds: float) -> Iterator[None]:
    """Have a program run, which takes some seconds to be ready."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    program = subprocess.Popen(command, cwd=folder, **quiet)
    time.sleep(seconds)
    try:
        yield
    finally:
        program.terminate()
        program.wait()


@contextmanager
def broker() -> Iterator[None]:
    """Have a Redis server on loopback."""
    settings = "--bind 127.0.0.1 --port 6399 --requirepass secret --save"
    os.environ["HPCKIT_BROKER"] = "redis://:secret@127.0.0.1:6399/0"
    with (
        tempfile.TemporaryDirectory() as folder,
        running(["redis-server", *settings.split(), ""], folder, 1.0),
    ):
        yield


def workers(program: Sequence[str]) -> AbstractContextManager[None]:
    """Have workers that listen to it."""
    return running([sys.executable, *program], str(Path(__file__).parent), 5.0)


def peers_of(engine: str) -> Peers:
    """Measure the peers of an engine in a process of their own."""
    program = [str(Path(__file__).with_name("peers.py")), engine, str(WORKERS)]
    command = [sys.executable, *program]
    if engine == "mpi":
        ranks = ["-n", str(WORKERS + 1), sys.executable, "-m", "mpi4py.futures"]
        command = [str(Path(sys.executable).with_name("mpiexec")), *ranks, *program]
    # As root in a container, and with more ranks than cores.
    allowed = {"PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe"}
    allowed |= {f"OMPI_ALLOW_RUN_AS_ROOT{end}": "1" for end in ("", "_CONFIRM")}
    said = subprocess.run(command, env=os.environ | allowed, stdout=subprocess.PIPE, check=True)
    found: Peers = json.loads(said.stdout)
    return found


def beside(own: float, peers: Peers, measure: str) -> str:
    """Tell how many times as fast as its peers something is."""
    found = {name: rates[measure] for name, rates in peers.items() if measure in rates}
    return "".join(f"; {own / rate:,.2f} × {name}" for name, rate in found.items())


def noop(bench: Bench, engine: str, peers: Peers) -> None:
    """Print the row of a million tasks that do nothing."""
    rate = bench.rate(NOOP, 1_000_000, engine)
    row(
        f"1,000,000 no-op tasks, {engine}",
        rate.told() + beside(rate.tasks, peers, "noop"),
        f"≥ {NOOP_TARGETS.get(engine, 0):,.0f} tasks/s, < 400 MB",
        rate.tasks >= NOOP_TARGETS.get(engine, 0) and rate.peak < 400e6,
    )


def spin(bench: Bench, engine: str, peers: Peers) -> None:
    """Print the row of tasks of 1 ms."""
    tasks = 10_000
    span = statistics.median(bench.run(SPIN, tasks, engine).span for _ in range(ROUNDS))
    share = tasks * 0.001 / WORKERS / span
    target = SPIN_TARGETS.get(engine, 0)
    row(
        f"{tasks:,} tasks of 1 ms, {engine}",
        f"{share:.3f} of ideal" + beside(share, peers, "spin"),
        f"≥ {target}",
        share >= target,
    )


def arrays(bench: Bench, peers: Peers) -> None:
    """Print the row of tasks that return 8 kB."""
    rate = bench.rate(ARRAY, 100_000, "processes")
    row(
        "100,000 results of 8 kB, processes",
        rate.told() + beside(rate.tasks, peers, "array"),
        "≥ 80,000 tasks/s",
        rate.tasks >= 80_000,
    )


def one_alone() -> None:
    """Print the row of a single call."""
    from hpckit.run.engines import Workplace
    from hpckit.run.engines.processes import ProcessesEngine

    with tempfile.TemporaryDirectory() as folder:
        own = latency_of(ProcessesEngine(Workplace(1, Path(folder) / "{pid}.log")))
    plain = latency_of(ProcessPoolExecutor(1))
    told = f"{own * 1e3:.2f} ms against {plain * 1e3:.2f} ms"
    row(
        "one task there and back, against ProcessPoolExecutor",
        told,
        "≤ 1 ms more",
        own < plain + 1e-3,
    )


def naps(bench: Bench) -> None:
    """Print the row of tasks that wait on an event loop."""
    span = statistics.median(bench.run(NAP, 10_000, "asyncio", 1000).span for _ in range(ROUNDS))
    row("10,000 waits of 100 ms, 1,000 at a time, asyncio", f"{span:.2f} s", "≤ 1.3 s", span <= 1.3)


def files(bench: Bench) -> None:
    """Print the row of files that stay."""
    left = bench.run(NOOP, 10_000, "processes").files
    row("files left by 10,000 tasks, beside logs", str(left), "≤ 10", left <= 10)


def main() -> None:
    """Print the table; the engines may be named on the command line."""
    engines = sys.argv[1:] or [*ONE_PROCESS, *NOOP_TARGETS, "asyncio"]
    header()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        for engine in (e for e in (*ONE_PROCESS, *SPIN_TARGETS) if e in engines):
            peers = {} if engine in ONE_PROCESS else peers_of(engine)
            noop(bench, engine, peers)
            spin(bench, engine, peers)
            if engine == "processes":
                arrays(bench, peers)
        if "processes" in engines:
            one_alone()
            files(bench)
        if "asyncio" in engines:
            naps(bench)
        if "celery" in engines:
            with broker():
                with workers(["-m", "celery", "-A", "peers_celery", *PLAIN]):
                    peers = peers_of("celery")
                with workers(["-m", "hpckit", "worker", "--workers", str(WORKERS)]):
                    noop(bench, "celery", peers)


if __name__ == "__main__":
    main()
