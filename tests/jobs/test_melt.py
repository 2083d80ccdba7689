"""The LAMMPS job against NIST's Monte Carlo of the Lennard-Jones liquid."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

stats = pytest.importorskip("scipy.stats")

pytestmark = pytest.mark.skipif(
    shutil.which("lmp") is None, reason="needs LAMMPS: apt-get install lammps"
)

T = 0.85
ATOMS = 500
FALSE_ALARM = 1e-4  # chance that a right job fails one comparison, were its seed another
# density: (energy, its standard deviation, pressure, its standard deviation), 500 atoms, cut off
# at 3 sigma with long-range corrections: NIST Standard Reference Simulation Website, SRD 173,
# https://mmlapps.nist.gov/srs/LJ_PURE/mc.htm
NIST = {
    0.78: (-5.5386, 7.26e-4, 4.7924e-2, 3.18e-3),
    0.86: (-6.0305, 2.38e-3, 1.2660, 1.36e-2),
}


def agrees(ours, reference, deviation):
    """Whether the mean of independent runs is the reference, given the errors of both."""
    error = np.hypot(stats.sem(ours), deviation)
    return abs(ours.mean() - reference) < stats.t.ppf(1 - FALSE_ALARM / 2, ours.size - 1) * error


def test_energy_and_pressure_are_nists(run_farm):
    results = run_farm("melt.toml", "rho=0.78,0.86", "repeat=12", "steps=8000")
    for rho, points in results.groupby("rho"):
        energy, energy_deviation, pressure, pressure_deviation = NIST[float(rho)]
        assert agrees(points.energy.values, energy, energy_deviation)
        # The atoms' total momentum is zero in LAMMPS, which takes its share from the pressure.
        drift = rho * T / ATOMS
        assert agrees(points.pressure.values + drift, pressure, pressure_deviation)


def test_atoms_diffuse_as_in_a_liquid(run_farm):
    (point,) = run_farm("melt.toml", "steps=4000").transpose("task", ...).msd.values
    assert point[0] < 1e-20
    assert point[-1] > 1  # in a crystal it stays below about 0.1
