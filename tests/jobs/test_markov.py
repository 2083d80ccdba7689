"""Stationary distributions against the eigenvectors that they are."""

from __future__ import annotations

import runpy

import numpy as np
import pytest


def test_they_are_eigenvectors():
    module = runpy.run_path("jobs/markov.py", run_name="hpckit_job_markov")
    one_step = np.random.default_rng(3).random((4, 12, 12)) ** 4
    one_step /= one_step.sum(axis=2, keepdims=True)
    many, total = module["square"](None, one_step, 12)
    assert total == pytest.approx(4 * 12)
    for chain, matrix in zip(one_step, many, strict=True):
        values, vectors = np.linalg.eig(chain.T)
        first = vectors[:, np.argmin(abs(values - 1))].real
        np.testing.assert_allclose(matrix, np.tile(first / first.sum(), (12, 1)), rtol=1e-9)


def test_the_job(run_farm):
    found = run_farm("markov.py", "n=5,20", "chains=4")
    assert np.all(found.change < 1e-14)
    assert np.all(found.entropy < np.log(found.n))
