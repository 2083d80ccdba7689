"""Sums on the card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hpckit.errors import UsageError

if TYPE_CHECKING:
    from hpckit.run.gpu.card import Gpu

BLOCK, MOST_BLOCKS = 256, 1024

SOURCE = """\
// Each block sums what its threads come across; always in the same order, so that a sum is the
// same each time.
__global__ void sums(const double *x, double *partial, long long n)
{
    __shared__ double part[256];
    double sum = 0;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) sum += x[i];
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = part[0];
}
"""


def total(gpu: Gpu, array: Any) -> float:
    """Return the sum of an array on the card.

    Raises
    ------
    UsageError
        It is not of float64.
    """
    if array.dtype != np.float64:
        raise UsageError(f"gpu.sum: an array of {array.dtype}; it takes float64")
    if array.size == 0:
        return 0.0
    sums = gpu.kernel(SOURCE, "sums")
    blocks = min(-(-array.size // BLOCK), MOST_BLOCKS)
    partial = gpu.empty(blocks)
    sums(array, partial, array.size, grid=blocks, block=BLOCK)
    if blocks == 1:
        return float(gpu.to_host(partial)[0])
    whole = gpu.empty(1)
    sums(partial, whole, blocks, grid=1, block=BLOCK)
    return float(gpu.to_host(whole)[0])
