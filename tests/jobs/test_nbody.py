"""The star cluster on the processor: the laws that it must keep."""

from __future__ import annotations

import runpy

import numpy as np
import pytest

pytest.importorskip("numba")


@pytest.fixture(scope="module")
def module():
    """The job file's names."""
    return runpy.run_path("jobs/nbody.py", run_name="hpckit_job_nbody")


class Task:
    """A task of the processor."""

    has_gpu = False

    def __init__(self, seed=1):
        self.rng = np.random.default_rng(seed)


def test_forces_are_newtons(module):
    x = np.random.default_rng(2).normal(size=(7, 3))
    a, potential = np.empty((7, 3)), np.empty(7)
    module["forces"](x, 0.1, a, potential)
    apart = x[None] - x[:, None]
    distance = np.sqrt((apart**2).sum(axis=2) + 0.01)
    np.testing.assert_allclose(a, (apart / distance[..., None] ** 3).sum(axis=1) / 7, rtol=1e-12)
    pairs = 1 / distance - np.eye(7) / 0.1
    np.testing.assert_allclose(potential, -pairs.sum(axis=1) / 7, rtol=1e-12)


def test_two_bodies_go_round_each_other_as_kepler_says(module):
    """A circle of radius 1/2 each, masses 1/2: the period is 2 pi (Kepler's third law)."""
    x = np.array([[0.5, 0, 0], [-0.5, 0, 0]])
    v = np.array([[0, 0.5, 0], [0, -0.5, 0]])
    pair = module["Host"](Task(), x.copy(), v.copy(), 1e-9)
    for _ in range(1000):
        pair.advance(2 * np.pi / 1000)
    np.testing.assert_allclose(pair.position(), x, atol=2e-4)
    assert sum(pair.energy()) == pytest.approx(-1 / 8, rel=1e-6)


def test_the_energy_error_goes_with_the_square_of_the_step(module):
    nbody = module["nbody"]
    coarse, fine = (
        nbody(Task(), n=64, steps=steps, dt=1 / steps, softening=0.1)["energy_error"]
        for steps in (64, 256)
    )
    assert coarse / fine == pytest.approx(16, rel=0.3)


def test_the_cluster_is_plummers(module):
    """Energy -1/4, and half of the mass within 0.77 (Aarseth, Henon & Wielen 1974)."""
    x, v = module["plummer"](np.random.default_rng(5), 4000)
    radius = np.sort(np.linalg.norm(x, axis=1))
    assert radius[2000] == pytest.approx(3 * np.pi / 16 * 1.3048, rel=0.05)
    kinetic, potential = module["Host"](Task(), x, v, 1e-4).energy()
    assert kinetic == pytest.approx(0.25, rel=0.05)
    assert potential == pytest.approx(-0.5, rel=0.05)


def test_nonsense_is_refused(module):
    with pytest.raises(ValueError, match="n must be at least 2"):
        module["nbody"](Task(), n=1)
