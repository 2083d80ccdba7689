"""Pytest's fixtures `slurm` and `slurm_alone`: a real cluster, shared by all that test.

A conftest.py makes them known: `from cluster.fixtures import *`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import needs, users
from cluster.session import COMMAND, Slurm
from cluster.whole import Cluster

__all__ = ["slurm", "slurm_alone", "slurm_cluster"]


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """The machine's one test cluster: the first process brings it up, the last takes it down."""
    if reason := needs.lack():
        pytest.skip(reason)
    for_us = ("--for", str(os.getpid()))
    up = subprocess.run([*COMMAND, "up", *for_us], capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    yield Cluster.find()
    subprocess.run([*COMMAND, "down", *for_us], check=True)


@pytest.fixture
def slurm(slurm_cluster: Cluster, tmp_path: Path) -> Iterator[Slurm]:
    """The cluster, whole, used by other tests at the same time."""
    with _turn(slurm_cluster, fcntl.LOCK_SH):
        tool = Slurm(slurm_cluster, tmp_path)
        yield tool
        tool.cancel()


@pytest.fixture
def slurm_alone(slurm_cluster: Cluster, tmp_path: Path) -> Iterator[Slurm]:
    """The cluster for a test that breaks it: no other test uses it, and it is mended after."""
    with _turn(slurm_cluster, fcntl.LOCK_EX):
        tool = Slurm(slurm_cluster, tmp_path)
        yield tool
        tool.mend()
        tool.cancel()


@contextlib.contextmanager
def _turn(cluster: Cluster, kind: int) -> Iterator[None]:
    """Wait for our turn; who comes after one that wants it alone waits behind it."""
    with contextlib.ExitStack() as held:
        with users.locked(cluster.state / "etc", fcntl.LOCK_EX):
            held.enter_context(users.locked(cluster.state / "users", kind))
        yield
