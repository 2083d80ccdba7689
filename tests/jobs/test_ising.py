"""The Ising job against Onsager's exact solution of the infinite lattice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpckit.spec.load import load_job

special = pytest.importorskip("scipy.special")
stats = pytest.importorskip("scipy.stats")

CRITICAL = 2 / np.log(1 + np.sqrt(2))
FALSE_ALARM = 1e-4  # chance that a right job fails one comparison, were its seed another


def exact_energy(T):
    """Energy per site: L. Onsager, Phys. Rev. 65, 117 (1944), with J = k = 1."""
    K = 1 / T
    kappa = 2 * np.sinh(2 * K) / np.cosh(2 * K) ** 2
    elliptic = special.ellipk(kappa**2)
    return -(1 + (2 / np.pi) * (2 * np.tanh(2 * K) ** 2 - 1) * elliptic) / np.tanh(2 * K)


def exact_specific_heat(T, step=1e-4):
    """Derivative of the energy; the job takes it from the fluctuations instead."""
    return (exact_energy(T + step) - exact_energy(T - step)) / (2 * step)


def exact_magnetisation(T):
    """Magnetisation per site below the transition: C. N. Yang, Phys. Rev. 85, 808 (1952)."""
    return (1 - np.sinh(2 / T) ** -4) ** 0.125


def finite_size(T, L):
    """Order of what a periodic lattice of edge L adds: exp(-L / correlation length).

    The lengths are those of B. M. McCoy and T. T. Wu, The Two-Dimensional Ising Model (1973).
    """
    inverse = abs(np.log(np.tanh(1 / T)) + 2 / T)  # T above the transition
    return np.exp(-L * (inverse if T > CRITICAL else 2 * inverse))


def agrees(repeats, exact, size_effect):
    """Whether the mean of the repeats is the exact value, by their own scatter and the size."""
    quantile = stats.t.ppf(1 - FALSE_ALARM / 2, repeats.size - 1)
    return abs(repeats.mean() - exact) < quantile * stats.sem(repeats) + size_effect


def test_averages_are_onsagers(run_farm):
    results = run_farm("ising.py", "T=1.8,2.0,2.7,3.2", "repeat=16")
    for T, points in results.groupby("T"):
        size_effect = finite_size(T, int(points.L[0]))
        assert agrees(points.energy.values, exact_energy(T), size_effect)
        assert agrees(points.specific_heat.values, exact_specific_heat(T), size_effect)
        if T < CRITICAL:
            assert agrees(points.magnetisation.values, exact_magnetisation(T), size_effect)


@pytest.mark.parametrize("wrong", [{"L": 31}, {"L": 2}, {"T": 0.0}, {"sweeps": 3}])
def test_what_the_method_cannot_do_is_refused(wrong):
    ising = load_job(str(Path(__file__).parents[2] / "jobs" / "ising.py")).job
    with pytest.raises(ValueError, match="L even"):
        ising(None, **wrong)
