"""Pytest's fixtures `fake_slurm` and `any_slurm`.

A conftest.py makes them known: `from fakes.fixtures import *`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.fixtures import slurm, slurm_cluster
from cluster.session import Slurm
from fakes.session import FakeSlurm

__all__ = ["any_slurm", "fake_slurm", "slurm", "slurm_cluster"]


@pytest.fixture
def fake_slurm(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeSlurm]:
    """A fake cluster of the test's own; all that it runs ends with the test."""
    tool = FakeSlurm(tmp_path_factory.mktemp("fake-slurm"), tmp_path.resolve())
    yield tool
    tool.stop()


@pytest.fixture(params=["fake", "real"])
def any_slurm(request: pytest.FixtureRequest) -> Slurm:
    """The fake one and the real one, one after the other."""
    return request.getfixturevalue("fake_slurm" if request.param == "fake" else "slurm")
