"""Where random walks end: stationary distributions of Markov chains, by squaring matrices.

hpckit run markov "n=64,128,256"          (and --gpus-per-task 1 on a GPU)

P squared k times is the matrix of 2^k steps; all its rows come to be the distribution that one
step more does not change (Kemeny & Snell, Finite Markov Chains, 1960, chapter 4). The work is in
products of matrices, which a GPU leaves to cuBLAS.
"""

from __future__ import annotations

import numpy as np

from hpckit import farm


@farm(
    cpus_per_task=1,
    mem="1G",
    walltime="30m",
    attrs={
        "n": {"units": "1", "long_name": "states of a chain"},
        "entropy": {"units": "1", "long_name": "mean entropy of the stationary distributions"},
        "change": {"units": "1", "long_name": "largest change of one by a step more"},
        "total": {"units": "1", "long_name": "sum of one, which is 1, on average"},
    },
)
def markov(task, n: int = 128, chains: int = 16, squarings: int = 12):
    """Find the stationary distributions of some random chains of n states."""
    if min(n, chains, squarings) < 1:
        raise ValueError("n, chains and squarings must be at least 1")
    one_step = task.rng.random((chains, n, n)) ** 4  # uneven, as real ones are
    one_step /= one_step.sum(axis=2, keepdims=True)
    many, total = (square_on_card if task.has_gpu else square)(task, one_step, squarings)
    stationary = many[:, 0]
    moved = np.einsum("ci,cij->cj", stationary, one_step)
    return {
        "entropy": -(stationary * np.log(stationary)).sum(axis=1).mean(),
        "change": np.abs(moved - stationary).max(),
        "total": total / (chains * n),
    }


def square(task, matrices, times):
    """Return a stack of matrices squared so many times, and the sum of all their elements."""
    for _ in range(times):
        matrices = matrices @ matrices
    return matrices, matrices.sum()


def square_on_card(task, matrices, times):
    """Do the same on a GPU."""
    gpu = task.gpu
    old = gpu.array(matrices)
    new = gpu.empty(old.shape)
    for _ in range(times):
        gpu.matmul(old, old, new)
        old, new = new, old
    return gpu.to_host(old), gpu.sum(old)
