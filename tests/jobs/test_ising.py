"""The Ising job against Onsager's exact solution of the infinite lattice."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hpckit.spec.load import load_job

scipy_special = pytest.importorskip("scipy.special")
scipy_stats = pytest.importorskip("scipy.stats")

CRITICAL = 2 / np.log(1 + np.sqrt(2))
FALSE_ALARM = 1e-4  # chance that a right job fails one comparison, were its seed drawn anew


def exact_energy(T):
    """Energy per site: L. Onsager, Phys. Rev. 65, 117 (1944), with J = k = 1."""
    K = 1 / T
    kappa = 2 * np.sinh(2 * K) / np.cosh(2 * K) ** 2
    elliptic = scipy_special.ellipk(kappa**2)
    return -(1 + (2 / np.pi) * (2 * np.tanh(2 * K) ** 2 - 1) * elliptic) / np.tanh(2 * K)


def exact_magnetisation(T):
    """Magnetisation per site below the transition: C. N. Yang, Phys. Rev. 85, 808 (1952)."""
    return (1 - np.sinh(2 / T) ** -4) ** 0.125


def finite_size(T, L):
    """Order of what a periodic lattice of edge L adds: exp(-L / correlation length).

    The lengths are those of B. M. McCoy and T. T. Wu, The Two-Dimensional Ising Model (1973).
    """
    inverse = abs(np.log(np.tanh(1 / T)) + 2 / T)  # T above the transition
    return np.exp(-L * np.where(T > CRITICAL, inverse, 2 * inverse))


@pytest.fixture
def tolerance():
    """Half-width of the confidence interval of a mean over repeats, plus the finite size."""

    def half_width(repeats, T, L):
        n = repeats.size
        error = repeats.std(ddof=1) / np.sqrt(n)
        return scipy_stats.t.ppf(1 - FALSE_ALARM / 2, n - 1) * error + finite_size(T, L)

    return half_width


def test_energy_and_magnetisation_are_onsagers(run_farm, tolerance):
    results = run_farm("ising.py", "T=1.8,2.0,2.7,3.2", "repeat=16")
    for T, points in results.groupby("T"):
        L = int(points.L[0])
        energy = points.energy.values
        assert energy.size == 16
        assert abs(energy.mean() - exact_energy(T)) < tolerance(energy, T, L)
        if T < CRITICAL:
            m = points.magnetisation.values
            assert abs(m.mean() - exact_magnetisation(T)) < tolerance(m, T, L)
