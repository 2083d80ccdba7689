"""What the tests of the example jobs share: a run of one, from its command line to its results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_farm(tmp_path):
    """Run a job of jobs/ on two processes and open its results; no task may fail."""
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")

    def run(job: str, *assignments: str):
        options = ["--engine", "processes", "--workers", "2", "--output", str(tmp_path)]
        command = [sys.executable, "-m", "hpckit", "run", f"jobs/{job}", *assignments, *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        (results,) = tmp_path.glob("*/results.h5")
        return xarray.load_dataset(results, engine="h5netcdf")

    return run
