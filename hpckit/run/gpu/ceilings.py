"""What a card can do, measured on it: the bounds that a run's kernels are held against.

They are those of the roofline model (Williams, Waterman & Patterson, Commun. ACM 52, 65 (2009)):
bytes a second of a copy in the card's memory, counted both ways, and multiply-adds a second on
numbers in registers, each of which counts as two operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hpckit.run.gpu.card import Gpu

LARGEST = 256 << 20
"""Bytes that are copied: more than any cache holds."""

SHARE = 16
"""At most one of so many parts of the memory that is free."""

REPEATS, CHAINS, BLOCK, BLOCKS_EACH = 5, 8, 256, 8

LEAST_SECONDS = 1e-3
"""What a measurement takes at least, or the events around it would count."""

CACHES = 4
"""So many times the card's cache is copied at least."""

SOURCE = """\
// Eight sums that do not wait for each other keep the units busy; the last line keeps the sums.
template <class Real> __device__ void multiply_add(Real *out, Real a, int rounds)
{
    Real x[8];
    for (int k = 0; k < 8; ++k) x[k] = threadIdx.x + k;
    for (int i = 0; i < rounds; ++i)
        for (int k = 0; k < 8; ++k) x[k] = x[k] * a + a;
    Real sum = 0;
    for (int k = 0; k < 8; ++k) sum += x[k];
    if (sum == a) out[0] = sum;
}
__global__ void multiply_add32(float *out, float a, int rounds)
{
    multiply_add(out, a, rounds);
}
__global__ void multiply_add64(double *out, double a, int rounds)
{
    multiply_add(out, a, rounds);
}
"""


def measured(gpu: Gpu) -> dict[str, float]:
    """Return bytes and operations a second; it takes some hundredths of a second on a card.

    Nothing where others work on the card, or where it has no room for an honest copy.
    """
    gpu.memory.give_up_spare()
    free, _ = gpu.cuda.mem_get_info()
    count = min(LARGEST, free // SHARE) // 4096 * 4096
    if gpu.wish.sharing > 1 or count < max(CACHES * gpu.limits["cache"], 4096):
        return {}
    one, other = gpu.cuda.mem_alloc(count), gpu.cuda.mem_alloc(count)
    host = gpu.pinned(count, np.uint8)
    try:
        copied = _best(gpu, lambda: gpu.cuda.memcpy_dtod(one, other, count))
        sent = _best(gpu, lambda: gpu.cuda.memcpy_htod_async(one, host))
        returned = _best(gpu, lambda: gpu.cuda.memcpy_dtoh_async(host, other))
    finally:
        one.free()
        other.free()
    return {
        "bytes_per_second": 2 * count / copied,
        "to_card_bytes_per_second": count / sent,
        "to_host_bytes_per_second": count / returned,
        "float32_per_second": _operations(gpu, "multiply_add32", np.float32),
        "float64_per_second": _operations(gpu, "multiply_add64", np.float64),
    }


def _operations(gpu: Gpu, name: str, number: Any) -> float:
    kernel, out = gpu.kernel(SOURCE, name), gpu.empty(1, number)
    grid = gpu.limits["multiprocessors"] * BLOCKS_EACH

    def work() -> None:
        kernel.launch((grid, 1, 1), (BLOCK, 1, 1), [out.ptr, 0.5, rounds])

    rounds, seconds = 64, 0.0
    while seconds < LEAST_SECONDS and rounds < 1 << 20:
        rounds *= 4
        seconds = _best(gpu, work)
    return 2.0 * grid * BLOCK * rounds * CHAINS / seconds


def _best(gpu: Gpu, work: Callable[[], Any]) -> float:
    """Return the shortest of some times, in seconds; the first, which warms up, does not count."""
    times = list[float]()
    begin, end = gpu.cuda.Event(), gpu.cuda.Event()
    for _ in range(REPEATS + 1):
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.time_till(end) * 1e-3)
    return max(min(times[1:]), 1e-9)
