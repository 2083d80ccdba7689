"""The two-dimensional Ising model: magnets that forget their direction at T = 2.27.

hpckit run ising "T=linspace(1.5,3.5,21)"
"""

from __future__ import annotations

import numpy as np

from hpckit import farm


@farm(
    cpus_per_task=1,
    mem="500M",
    walltime="30m",
    attrs={
        "T": {"units": "1", "long_name": "temperature k T / J"},
        "L": {"units": "1", "long_name": "sites along an edge of the lattice"},
        "magnetisation": {"units": "1", "long_name": "mean of |magnetisation| per site"},
        "energy": {"units": "1", "long_name": "mean energy per site, over J"},
        "specific_heat": {"units": "1", "long_name": "specific heat per site, over k"},
        "susceptibility": {"units": "1", "long_name": "susceptibility per site of |m|, times J"},
    },
)
def ising(task, T: float = 2.0, L: int = 32, sweeps: int = 2000):
    """Sample spins on a periodic L x L lattice with the heat bath, after sweeps/4 to settle.

    It starts with all spins up, for a random start below the transition can freeze in stripes.
    Near the transition the lattice forgets slowly, over about L**2 sweeps: give it more there.
    """
    if T <= 0 or L < 4 or L % 2 or sweeps < 4:
        raise ValueError("T must be positive, L even and at least 4, sweeps at least 4")
    m, e = (sample_on_card if task.has_gpu else sample)(task, T, L, sweeps)
    return {
        "magnetisation": m.mean(),
        "energy": e.mean(),
        "specific_heat": L**2 * e.var() / T**2,
        "susceptibility": L**2 * m.var() / T,
    }


def up_probability(T):
    """Return the probability of a spin to be up, by the sum of its neighbours from -4 to 4."""
    return 1 / (1 + np.exp(-2 * np.arange(-4, 5) / T))


def sample(task, T, L, sweeps):
    """Return |magnetisation| and energy per site after each sweep."""
    spins = np.ones((L, L), dtype=np.int8)
    black = np.indices((L, L)).sum(axis=0) % 2 == 0
    probability = up_probability(T)

    m, e = np.empty((2, sweeps))
    for sweep in range(-(sweeps // 4), sweeps):
        for colour in (black, ~black):  # sites of one colour are no neighbours of each other
            up = task.rng.random((L, L)) < probability[neighbours(spins) + 4]
            spins = np.where(colour, np.where(up, 1, -1), spins).astype(np.int8)
        if sweep >= 0:
            m[sweep] = abs(spins.mean())
            e[sweep] = -(spins * neighbours(spins)).mean() / 2  # each bond is seen from both ends
    return m, e


def sample_on_card(task, T, L, sweeps):
    """Return the same of other random numbers, from a GPU; it pays from some 1000 x 1000 on."""
    gpu = task.gpu
    # A thread writes four sites of a byte, and reads about as many of the other colour.
    draw = gpu.kernel("ising.cu", "heat_bath", bytes_per_thread=8)
    measure = gpu.kernel("ising.cu", "measure")
    keys = [int(word) for word in task.rng.integers(2**32, size=2)]
    up = gpu.array((up_probability(T)[::2] * 2**32).astype(np.uint64))
    black, white = gpu.array(np.ones((2, L, L // 2), np.int8))
    spins, bonds = gpu.zeros((2, sweeps), np.uint64)

    settling = sweeps // 4
    for sweep in range(settling + sweeps):
        for colour, mine, other in ((0, black, white), (1, white, black)):
            arguments = (mine, other, L, colour, sweep, *keys, up)
            draw(*arguments, threads=(-(-L // 8), L), block=(64, 1))
        if sweep >= settling:
            arguments = (black, white, L, sweep - settling, spins, bonds)
            measure(*arguments, grid=(-(-L // 1024), L), block=32)
    m, e = (gpu.to_host(sums).astype(np.int64) / L**2 for sums in (spins, bonds))
    return abs(m), -e


def neighbours(spins):
    """Sum, at each site of a periodic lattice, of the four spins around it."""
    return sum(np.roll(spins, step, axis) for axis in (0, 1) for step in (-1, 1))
