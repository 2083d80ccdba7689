"""What others reach who store nothing: the time of the map alone, in a pool that is warm.

``python benchmarks/peers.py ENGINE WORKERS`` prints it as JSON for the peers of an engine of
hpckit. Those of `mpi` are measured under ``mpiexec -n WORKERS+1 python -m mpi4py.futures``, those
of `celery` want a broker in ``$HPCKIT_BROKER`` and a worker of `peers_celery`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

ROUNDS = 3
CALLS = 300
BY_HAND = 64
ROW = np.arange(1000.0)

Map: TypeAlias = Callable[[Callable[[int], Any], range], list[Any]]
Peers: TypeAlias = dict[str, tuple[int, Map]]
"""By a peer's name: how many no-op tasks take it seconds, and how it maps a function."""


def same(i: int) -> int:
    """Do nothing."""
    return i


def array(i: int) -> NDArray[np.float64]:
    """Return 8 kB, and not the same ones, which pickle would send once."""
    return ROW + i


def spin(i: int) -> int:
    """Take 1 ms of a core."""
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass
    return i


def some(function: Callable[[int], Any], indices: tuple[int, ...]) -> list[Any]:
    """Call a function for several tasks, packed by hand."""
    return [function(i) for i in indices]


@contextmanager
def processes(workers: int) -> Iterator[Peers]:
    """Processes of one machine."""
    from multiprocessing import Pool

    from joblib import Parallel, delayed

    with (
        Pool(workers) as pool,
        ProcessPoolExecutor(workers) as executor,
        Parallel(n_jobs=workers) as parallel,
    ):
        yield {
            "multiprocessing.Pool.map, chunks of 1000": (
                1_000_000,
                lambda f, n: pool.map(f, n, chunksize=1000),
            ),
            "ProcessPoolExecutor.map, chunks of 1000": (
                1_000_000,
                lambda f, n: list(executor.map(f, n, chunksize=1000)),
            ),
            "joblib, automatic batches": (
                1_000_000,
                lambda f, n: parallel(delayed(f)(i) for i in n),
            ),
        }


@contextmanager
def mpi(workers: int) -> Iterator[Peers]:
    """Ranks of MPI."""
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor(workers) as executor:
        yield {
            f"MPIPoolExecutor.map, chunks of {size}": (
                tasks,
                lambda f, n, size=size: list(executor.map(f, n, chunksize=size)),
            )
            for size, tasks in ((1000, 1_000_000), (64, 300_000))
        }


@contextmanager
def dask(workers: int) -> Iterator[Peers]:
    """A dask cluster on this machine."""
    from distributed import Client, LocalCluster

    options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}

    def by_hand(function: Callable[[int], Any], indices: range) -> list[Any]:
        parts = list(cut(indices))
        return list(chain(*client.gather(client.map(some, [function] * len(parts), parts))))

    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield {
            "dask's Client.map": (
                1_000,
                lambda f, n: client.gather(client.map(f, n, pure=False)),
            ),
            "dask, 64 a task by hand": (50_000, by_hand),
        }


@contextmanager
def celery(workers: int) -> Iterator[Peers]:
    """Celery's workers, which must be there."""
    import peers_celery

    tasks = {same: peers_celery.same, spin: peers_celery.spin}
    yield {
        "celery's delay": (
            1_000,
            lambda f, n: [sent.get() for sent in [tasks[f].delay(i) for i in n]],
        ),
        "celery's chunks(64)": (
            50_000,
            lambda f, n: list(chain(*tasks[f].chunks(zip(n), BY_HAND).apply_async().get())),
        ),
    }


def cut(indices: range) -> Iterator[tuple[int, ...]]:
    """Cut indices into what is packed by hand."""
    for begin in range(0, len(indices), BY_HAND):
        yield tuple(indices[begin : begin + BY_HAND])


def rate(mapped: Map, function: Callable[[int], Any], tasks: int) -> float:
    """Return tasks a second, the results being in order."""
    mapped(function, range(tasks // 10))
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        found = mapped(function, range(tasks))
        seconds.append(time.perf_counter() - begun)
        assert len(found) == tasks
        assert function is array or found == list(range(tasks))
    return tasks / statistics.median(seconds)


def measured(engine: str, workers: int) -> dict[str, dict[str, float]]:
    """Return by a peer's name its rates of no-op tasks and of 8 kB, its share of ideal at 1 ms."""
    found = {}
    of = {"processes": processes, "mpi": mpi, "dask": dask, "celery": celery}
    with of[engine](workers) as peers:
        for name, (tasks, mapped) in peers.items():
            found[name] = {
                "noop": rate(mapped, same, tasks),
                "spin": rate(mapped, spin, min(tasks, 10_000)) * 0.001 / workers,
            }
            if engine != "celery":
                found[name]["array"] = rate(mapped, array, min(tasks, 50_000))
    return found


def latency_of(executor: Executor) -> float:
    """Return the seconds that a warm executor takes for a call and its result."""
    executor.submit(same, 0).result()
    seconds = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        executor.submit(same, 0).result()
        seconds.append(time.perf_counter() - begun)
    executor.shutdown()
    return statistics.median(seconds)


if __name__ == "__main__":
    import peers

    # By its own name, since workers import the functions from it.
    print(json.dumps(peers.measured(sys.argv[1], int(sys.argv[2]))))
