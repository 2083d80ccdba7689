"""What others reach who store nothing: the time of the map alone, in a pool that is warm."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor

TASKS = 1_000_000
ROUNDS = 3
CALLS = 300


def same(i: int) -> int:
    """Do nothing."""
    return i


def peer_rates(workers: int) -> dict[str, float]:
    """Return tasks a second of each peer, its results in order and checked."""
    with multiprocessing.Pool(workers) as pool, ProcessPoolExecutor(workers) as executor:
        return {
            "multiprocessing.Pool.map, chunks of 1000": _rate(
                lambda: pool.map(same, range(TASKS), chunksize=1000)
            ),
            "ProcessPoolExecutor.map, chunks of 1000": _rate(
                lambda: list(executor.map(same, range(TASKS), chunksize=1000))
            ),
        }


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


def _rate(mapped: Callable[[], list[int]]) -> float:
    mapped()
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        found = mapped()
        seconds.append(time.perf_counter() - begun)
        assert found == list(range(TASKS))
    return TASKS / statistics.median(seconds)
